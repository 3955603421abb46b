//! The client, without an async runtime: the kubelet starts it for each probe.

use super::{Answer, Check, MAX_ANSWER_BYTES, OK, Request};
use crate::volume::RenewTarget;
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

/// Asks the driver that listens on `socket` how it is.
pub(crate) fn ask(socket: &Path, check: Check) -> Result<(), ControlError> {
    send(socket, &Request::Check(check)).map(|_none| ())
}

/// Starts renewals of the driver that listens on `socket`. Returns their number.
pub(crate) fn renew(socket: &Path, target: &RenewTarget) -> Result<usize, ControlError> {
    send(socket, &Request::Renew(target.clone())).map(Option::unwrap_or_default)
}

fn send(socket: &Path, request: &Request) -> Result<Option<usize>, ControlError> {
    let path = || socket.to_owned();
    let stream =
        UnixStream::connect(socket).map_err(|source| ControlError::Unreachable { path: path(), source })?;
    let answer =
        exchange(stream, request).map_err(|source| ControlError::NoAnswer { path: path(), source })?;
    parse(answer).map_err(ControlError::Failed)
}

/// What an answer says. A failure begins with no such word.
fn parse(answer: String) -> Answer {
    match answer.split_once(' ') {
        None if answer == OK => Ok(None),
        Some((OK, number)) if let Ok(number) = number.parse() => Ok(Some(number)),
        _ => Err(answer),
    }
}

fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().replace('\n', " "))
}
