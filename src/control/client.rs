//! The client, without an async runtime: the kubelet starts it for each probe.

use super::{Check, MAX_ANSWER_BYTES, OK};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Time for the driver's answer. It is shorter than the kubelet's timeout in the chart, so that the reason is shown.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a check has failed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nothing listens.
    #[error(
        "certlet does not listen on {}: {source}; accepted: the data root of a driver that runs, or the directory of a sidecar",
        .path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It listens, and does not answer.
    #[error("certlet has not answered on {} within {} s: {source}", .path.display(), ANSWER_TIMEOUT.as_secs())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The driver says what is wrong.
    #[error("{0}")]
    Failed(String),
}

/// Asks the driver that listens on `socket`.
pub(crate) fn ask(socket: &Path, check: Check) -> Result<(), ControlError> {
    let path = || socket.to_owned();
    let stream =
        UnixStream::connect(socket).map_err(|source| ControlError::Unreachable { path: path(), source })?;
    let answer = exchange(stream, check).map_err(|source| ControlError::NoAnswer { path: path(), source })?;
    if answer == OK { Ok(()) } else { Err(ControlError::Failed(answer)) }
}

fn exchange(mut stream: UnixStream, check: Check) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("{}\n", check.as_str()).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().replace('\n', " "))
}
