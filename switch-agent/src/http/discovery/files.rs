//! Operator's files that machines are told of: boot templates and machine configs.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// Largest file that is read, in bytes.
const FILE_LEN_MAX: u64 = 256 << 10;
/// Files remembered; partitions are few.
const FILES_MAX: usize = 256;

struct Good<T> {
    stamp: Stamp,
    value: T,
    at: Instant,
}

type Stamp = (u64, Option<SystemTime>);

/// Content of files as it was last read and parsed well. A file that goes away or breaks leaves its last
/// good content, whose age tells.
pub struct LastGood<T> {
    files: Mutex<BTreeMap<String, Good<T>>>,
}

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        LastGood { files: Mutex::new(BTreeMap::new()) }
    }
}

impl<T: Clone> LastGood<T> {
    /// The file's content and its age; an error only where there never was a good one.
    pub async fn get(
        &self,
        path: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(T, std::time::Duration), String> {
        let fresh = self.refresh(path, parse).await;
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match (files.get(path), fresh) {
            (Some(good), Ok(())) => Ok((good.value.clone(), std::time::Duration::ZERO)),
            (Some(good), Err(error)) => {
                tracing::warn!(path, error, "file cannot be used; its last good content is");
                Ok((good.value.clone(), good.at.elapsed()))
            }
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(format!("{path}: not kept")),
        }
    }

    async fn refresh(&self, path: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<(), String> {
        let failed = |error: io::Error| format!("{path}: {error}");
        let meta = tokio::fs::metadata(path).await.map_err(failed)?;
        let stamp: Stamp = (meta.len(), meta.modified().ok());
        if let Some(good) = self.files.lock().unwrap_or_else(PoisonError::into_inner).get_mut(path)
            && good.stamp == stamp
        {
            good.at = Instant::now();
            return Ok(());
        }
        if !meta.is_file() || meta.len() > FILE_LEN_MAX {
            return Err(format!("{path}: no file of at most {FILE_LEN_MAX} bytes"));
        }
        let mut text = String::new();
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        file.take(FILE_LEN_MAX).read_to_string(&mut text).await.map_err(failed)?;
        let value = parse(&text).map_err(|error| format!("{path}: {error}"))?;
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= FILES_MAX && !files.contains_key(path) {
            files.pop_first();
        }
        files.insert(path.to_owned(), Good { stamp, value, at: Instant::now() });
        Ok(())
    }
}
