//! The unix socket of the admin API.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::AdminError;

/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// A bound socket and its file, which goes when this does, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct AdminSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl AdminSocket {
    /// Binds under another name, sets the mode, and renames: the path never shows a socket that somebody
    /// else may open, and a stale one is replaced in one step. A socket that still answers, or a file that
    /// is no socket, stays.
    pub(super) fn bind(path: &Path) -> Result<AdminSocket, AdminError> {
        let failed = |source: io::Error| AdminError::Socket { path: path.to_owned(), source };
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(AdminError::NotASocket { path: path.to_owned() });
            }
            if StdUnixStream::connect(path).is_ok() {
                return Err(AdminError::InUse { path: path.to_owned() });
            }
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(fresh);
        // Left over from a process of the same id that died between bind and rename.
        fs::remove_file(&fresh).ok();
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        let inode = fs::set_permissions(&fresh, Permissions::from_mode(SOCKET_MODE))
            .and_then(|()| fs::rename(&fresh, path))
            .and_then(|()| fs::symlink_metadata(path));
        match inode {
            Ok(metadata) => Ok(AdminSocket { listener, path: path.to_owned(), inode: metadata.ino() }),
            Err(source) => {
                fs::remove_file(&fresh).ok();
                Err(failed(source))
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            fs::remove_file(&self.path).ok();
        }
    }
}
