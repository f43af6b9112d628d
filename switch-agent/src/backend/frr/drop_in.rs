//! Files: templates in, the rendered drop-in out.

use std::io;
use std::path::{Path, PathBuf};

use switch_agent_core::frr::Templates;

/// Largest template file that is read, in bytes.
const TEMPLATE_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum DropInError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has more than {TEMPLATE_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The built-in templates, with those of `folder` (files named `*.j2`) in their place.
///
/// # Errors
/// The folder or one of its templates cannot be read.
pub async fn load_templates(folder: Option<&Path>) -> Result<Templates, DropInError> {
    let mut templates = Templates::default();
    let Some(folder) = folder else {
        return Ok(templates);
    };
    let failed = |path: &Path, source| DropInError::Read { path: path.to_owned(), source };
    let mut entries = tokio::fs::read_dir(folder).await.map_err(|source| failed(folder, source))?;
    while let Some(entry) = entries.next_entry().await.map_err(|source| failed(folder, source))? {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !name.ends_with(".j2") {
            continue;
        }
        let size = tokio::fs::metadata(&path).await.map_err(|source| failed(&path, source))?.len();
        if size > TEMPLATE_MAX {
            return Err(DropInError::TooLong { path });
        }
        let source = tokio::fs::read_to_string(&path).await.map_err(|source| failed(&path, source))?;
        templates.insert(name, source);
    }
    Ok(templates)
}

/// Writes `<state_dir>/frr/boot-network.conf` for whoever merges it into frr.conf: whole or not at all, and
/// only when it differs. Returns whether it was written.
///
/// # Errors
/// The file or its folder cannot be written.
pub async fn write_drop_in(state_dir: &Path, text: &str) -> Result<bool, DropInError> {
    let folder = state_dir.join("frr");
    let path = folder.join("boot-network.conf");
    if tokio::fs::read(&path).await.is_ok_and(|present| present == text.as_bytes()) {
        return Ok(false);
    }
    let failed = |source| DropInError::Write { path: path.clone(), source };
    tokio::fs::create_dir_all(&folder).await.map_err(failed)?;
    let temporary = folder.join(".boot-network.conf.tmp");
    tokio::fs::write(&temporary, text).await.map_err(failed)?;
    tokio::fs::File::open(&temporary).await.map_err(failed)?.sync_all().await.map_err(failed)?;
    tokio::fs::rename(&temporary, &path).await.map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drop_in_is_written_once() {
        let folder = std::env::temp_dir().join(format!("switch-agent-drop-in-{}", std::process::id()));
        assert!(write_drop_in(&folder, "!\n").await.unwrap());
        assert!(!write_drop_in(&folder, "!\n").await.unwrap());
        assert!(write_drop_in(&folder, "! 2\n").await.unwrap());
        assert_eq!(std::fs::read_to_string(folder.join("frr/boot-network.conf")).unwrap(), "! 2\n");
        assert_eq!(std::fs::read_dir(folder.join("frr")).unwrap().count(), 1);

        std::fs::write(folder.join("policy.conf.j2"), "! mine\n").unwrap();
        std::fs::write(folder.join("notes.txt"), "{% broken").unwrap();
        let templates = load_templates(Some(&folder)).await.unwrap();
        assert_ne!(templates, Templates::default());
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(load_templates(Some(&folder)).await.is_err());
        assert_eq!(load_templates(None).await.unwrap(), Templates::default());
    }
}
