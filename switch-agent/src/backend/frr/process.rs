//! One bounded child process.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// Most that a running configuration and its tables may take, in bytes.
const OUTPUT_MAX: u64 = 8 << 20;
const ERROR_OUTPUT_MAX: u64 = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("it does not start")]
    Spawn(#[source] std::io::Error),
    #[error("its output cannot be read")]
    Read(#[source] std::io::Error),
    #[error("it did not end within {0:?}")]
    Timeout(Duration),
    #[error("it wrote more than {OUTPUT_MAX} bytes")]
    TooLong,
    #[error("it ended with {status} and said: {text}")]
    Failed { status: String, text: String },
}

impl ProcessError {
    /// There is no such program.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, ProcessError::Spawn(error) if error.kind() == std::io::ErrorKind::NotFound)
    }
}

/// What a child wrote.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) text: String,
    /// The standard error: where vtysh says which daemon is away.
    pub(super) errors: String,
}

/// Runs `command` with `arguments` and returns what it wrote. The child is killed when it takes longer than
/// `timeout` or the caller goes away.
///
/// # Errors
/// As the variants say. A non-zero exit is an error only when nothing was written to the standard output:
/// vtysh then had no daemon to talk to (or docker no container).
pub(super) async fn run(
    command: &[String],
    arguments: &[&str],
    timeout: Duration,
) -> Result<Output, ProcessError> {
    let (program, prefix) = command
        .split_first()
        .ok_or_else(|| ProcessError::Spawn(std::io::Error::from(std::io::ErrorKind::InvalidInput)))?;
    let mut child = Command::new(program)
        .args(prefix)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ProcessError::Spawn)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (output, errors) = tokio::join!(read(stdout, OUTPUT_MAX), read(stderr, ERROR_OUTPUT_MAX));
        let (output, errors) = (output.map_err(ProcessError::Read)?, errors.map_err(ProcessError::Read)?);
        if output.len() as u64 > OUTPUT_MAX {
            return Err(ProcessError::TooLong);
        }
        let status = child.wait().await.map_err(ProcessError::Read)?;
        let errors = String::from_utf8_lossy(&errors).trim().to_owned();
        if !status.success() && output.trim_ascii().is_empty() {
            return Err(ProcessError::Failed { status: status.to_string(), text: errors });
        }
        Ok(Output { text: String::from_utf8_lossy(&output).into_owned(), errors })
    };
    tokio::time::timeout(timeout, work).await.map_err(|_| ProcessError::Timeout(timeout))?
}

/// Reads up to one byte more than `limit`.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> Result<Output, ProcessError> {
        run(&["sh".to_owned(), "-c".to_owned()], &[script], Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn output_counts_more_than_the_exit_code() {
        let output = shell("echo hello; echo careful >&2; exit 13").await.unwrap();
        assert_eq!((output.text.as_str(), output.errors.as_str()), ("hello\n", "careful"));
        let error = shell("echo no daemons >&2; exit 1").await.unwrap_err();
        assert_eq!(error.to_string(), "it ended with exit status: 1 and said: no daemons");
    }

    #[tokio::test]
    async fn a_child_is_bounded_in_time_and_output() {
        let stuck = run(&["sleep".to_owned()], &["60"], Duration::from_millis(50)).await;
        assert!(matches!(stuck, Err(ProcessError::Timeout(_))));
        assert!(matches!(shell("yes | head -c 9000000").await, Err(ProcessError::TooLong)));
        let missing = run(&["/nonexistent/vtysh".to_owned()], &[], Duration::from_secs(1)).await;
        assert!(matches!(missing, Err(ProcessError::Spawn(_))));
    }
}
