//! The state directory: ledger, identity key, last good configuration.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use switch_agent_core::ownership::Ledger;

/// Name of the file with the agent's record of the rows it owns.
pub const LEDGER_FILE: &str = "ledger.json";
/// What is appended to the name of a file that cannot be understood.
pub const BROKEN: &str = ".broken";

/// Largest file that is read: beyond any that the agent writes.
const FILE_SIZE_MAX: u64 = 16 << 20;

/// A state file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{name:?} is not a plain file name")]
    Name { name: String },
    #[error("cannot encode {name}")]
    Encode {
        name: String,
        #[source]
        source: serde_json::Error,
    },
}

/// A ledger as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedLedger {
    /// No file: the first start, or a lost state directory.
    Absent,
    Loaded(Ledger),
    /// The file was no ledger of this version. It was set aside; the reason is for the log.
    Broken(String),
}

/// A directory of small files that are replaced whole.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens the directory, created with mode 0700 where it is missing.
    ///
    /// # Errors
    /// It cannot be created or is no directory.
    pub fn open(path: &Path) -> Result<StateDir, StateDirError> {
        let failed = |action| move |source| StateDirError::Io { action, path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
        // It holds the identity key: an existing directory is closed to others too.
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("protect"))?;
        Ok(StateDir { path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if plain { Ok(self.path.join(name)) } else { Err(StateDirError::Name { name: name.to_owned() }) }
    }

    /// The bytes of the file `name`, or `None` when there is none. Blocks.
    ///
    /// # Errors
    /// The file exists and cannot be read, or is larger than 16 MiB.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StateDirError> {
        let path = self.file(name)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(StateDirError::Io { action: "open", path, source });
            }
        };
        let mut bytes = Vec::new();
        if let Err(source) = file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes) {
            return Err(StateDirError::Io { action: "read", path, source });
        }
        if bytes.len() as u64 > FILE_SIZE_MAX {
            return Err(StateDirError::TooLarge { path, limit: FILE_SIZE_MAX });
        }
        Ok(Some(bytes))
    }

    /// Replaces the file `name`: after a crash it has the old content or the new, never a part. Mode 0600.
    /// Blocks until the disk has it.
    ///
    /// # Errors
    /// The content could not be written; the old file is untouched.
    pub fn store(&self, name: &str, bytes: &[u8]) -> Result<(), StateDirError> {
        let path = self.file(name)?;
        let temporary = self.path.join(format!(".{name}.tmp"));
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Io { action, path, source }
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed("create", &temporary))?;
        file.write_all(bytes).map_err(failed("write", &temporary))?;
        file.sync_all().map_err(failed("sync", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(failed("replace", &path))?;
        // The rename is durable once the directory is.
        let directory = File::open(&self.path).map_err(failed("open", &self.path))?;
        directory.sync_all().map_err(failed("sync", &self.path))
    }

    /// Sets a file aside that cannot be understood: a later version may have written it, and be back.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&self, name: &str) -> Result<(), StateDirError> {
        let path = self.file(name)?;
        std::fs::rename(&path, self.path.join(format!("{name}{BROKEN}")))
            .map_err(|source| StateDirError::Io { action: "set aside", path, source })
    }

    /// The ledger. A file that is none is set aside: names still tell most of what is ours.
    ///
    /// # Errors
    /// The file exists and cannot be read or moved.
    pub fn load_ledger(&self) -> Result<LoadedLedger, StateDirError> {
        let Some(bytes) = self.load(LEDGER_FILE)? else {
            return Ok(LoadedLedger::Absent);
        };
        match serde_json::from_slice(&bytes) {
            Ok(ledger) => Ok(LoadedLedger::Loaded(ledger)),
            Err(error) => {
                self.set_aside(LEDGER_FILE)?;
                Ok(LoadedLedger::Broken(error.to_string()))
            }
        }
    }

    /// Writes the ledger, as [`StateDir::store`] does.
    ///
    /// # Errors
    /// As [`StateDir::store`].
    pub fn store_ledger(&self, ledger: &Ledger) -> Result<(), StateDirError> {
        let mut bytes = serde_json::to_vec_pretty(ledger)
            .map_err(|source| StateDirError::Encode { name: LEDGER_FILE.to_owned(), source })?;
        bytes.push(b'\n');
        self.store(LEDGER_FILE, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use switch_agent_core::ownership::{LedgerPort, VrfOrigin};

    use super::*;
    use crate::backend::redis::testing::TempDir;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_ledger_survives_a_restart_and_nobody_else_reads_it() {
        let temp = TempDir::new();
        let path = temp.path().join("a/b");
        let dir = StateDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(dir.load_ledger().unwrap(), LoadedLedger::Absent);
        let mut ledger = Ledger::default();
        ledger.vrfs.insert("VrfBoot-p1".parse().unwrap(), VrfOrigin::Created);
        let port = LedgerPort {
            vrf: "VrfBoot-p1".parse().unwrap(),
            addresses: vec!["2001:db8::1/64".parse().unwrap()],
            base_row: true,
        };
        ledger.ports.insert("Ethernet0".parse().unwrap(), port);
        dir.store_ledger(&ledger).unwrap();
        dir.store_ledger(&ledger).unwrap();
        assert_eq!(mode(&path.join(LEDGER_FILE)), 0o600);
        let again = StateDir::open(&path).unwrap();
        assert_eq!(again.load_ledger().unwrap(), LoadedLedger::Loaded(ledger));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn an_open_directory_is_closed_to_others() {
        let temp = TempDir::new();
        std::fs::set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
        StateDir::open(temp.path()).unwrap();
        assert_eq!(mode(temp.path()), 0o700);
    }

    #[test]
    fn a_broken_ledger_is_moved_aside() {
        let temp = TempDir::new();
        let dir = StateDir::open(temp.path()).unwrap();
        dir.store(LEDGER_FILE, b"{\"vrfs\": {\"nonsense name\": \"created\"}}").unwrap();
        assert!(matches!(dir.load_ledger().unwrap(), LoadedLedger::Broken(_)));
        assert_eq!(dir.load_ledger().unwrap(), LoadedLedger::Absent);
        assert!(temp.path().join("ledger.json.broken").exists());
    }

    #[test]
    fn names_stay_inside_and_a_failed_write_keeps_the_old_file() {
        let temp = TempDir::new();
        let dir = StateDir::open(temp.path()).unwrap();
        for bad in ["", "../x", "/etc/x", ".x", "a/b"] {
            assert!(matches!(dir.store(bad, b""), Err(StateDirError::Name { .. })), "{bad}");
            assert!(matches!(dir.load(bad), Err(StateDirError::Name { .. })), "{bad}");
        }
        assert_eq!(dir.load("key").unwrap(), None);
        dir.store("key", b"old").unwrap();
        // A directory in the way of the temporary file makes the write fail before it replaces anything.
        std::fs::create_dir(temp.path().join(".key.tmp")).unwrap();
        assert!(matches!(dir.store("key", b"new"), Err(StateDirError::Io { .. })));
        assert_eq!(dir.load("key").unwrap().as_deref(), Some(b"old".as_slice()));
    }
}
