//! The server. Time, size and number of requests are limited, though only root can send any: a client that hangs must not make
//! the kubelet's next probe fail.

use super::{Answer, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, OK, Request};
use crate::telemetry::{Claim, Connections};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Limit on open connections. For the next one, the oldest one that has sent no request is closed. The kubelet has at most two
/// probes under way.
const MAX_CONNECTIONS: usize = 16;

/// Time for a whole connection. A check takes at most three seconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Answers each request with the result of `handle`, until `shutdown`.
pub(crate) async fn serve<H, F>(listener: UnixListener, handle: H, shutdown: CancellationToken)
where
    H: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    // All clients are root, so they count as one source.
    let mut connections = Connections::new(MAX_CONNECTIONS, MAX_CONNECTIONS);
    while let Some(stream) = shutdown.run_until_cancelled(accept(&listener)).await {
        // All of them are being answered. The new one waits for the end of one.
        while !connections.make_space(()).await {
            connections.tasks.join_next().await;
        }
        let (claim, handle) = (Claim::default(), handle.clone());
        let answered = answer(stream, handle, claim.clone());
        connections.add((), claim, async {
            // A client that is too slow, or disconnects, is not an error of the server.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answered).await;
        });
    }
    drop(listener);
    // At most for CONNECTION_TIMEOUT.
    while connections.tasks.join_next().await.is_some() {}
}

/// The next connection.
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request. When the request has come, takes `claim`.
async fn answer<H, F>(stream: UnixStream, handle: H, claim: Claim) -> io::Result<()>
where
    H: Fn(Request) -> F,
    F: Future<Output = Answer>,
{
    let (reading, mut writing) = stream.into_split();
    let mut request = String::new();
    BufReader::new(reading.take(MAX_REQUEST_BYTES)).read_line(&mut request).await?;
    if !claim.take() {
        return Ok(());
    }
    let result = match Request::parse(request.trim_end()) {
        Some(request) => handle(request).await,
        None => {
            Err("not a request of the control socket; accepted: liveness, readiness, notices, renew --all, \
                     renew NAMESPACE/POD, renew VOLUME"
                .to_owned())
        }
    };
    let answer = match result {
        Ok(None) => OK.to_owned(),
        Ok(Some(number)) => format!("{OK} {number}"),
        Err(reason) => reason,
    };
    let mut answer = answer.into_bytes();
    answer.truncate(usize::try_from(MAX_ANSWER_BYTES - 1).unwrap_or(usize::MAX));
    answer.push(b'\n');
    writing.write_all(&answer).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Check, ControlError, ask, renew, socket_in};
    use crate::platform::listen;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Limit on steps that take milliseconds. It is less than the client's and the server's timeouts.
    const TIMEOUT: Duration = Duration::from_secs(2);

    /// How long a slow check takes.
    const SLOW: Duration = Duration::from_millis(200);

    /// The checks that a server has made.
    #[derive(Default)]
    struct Checks {
        started: AtomicUsize,
        running: AtomicUsize,
        most_running: AtomicUsize,
    }

    /// A server in a directory. Ends when dropped.
    struct Served {
        socket: PathBuf,
        checks: Arc<Checks>,
        _directory: tempfile::TempDir,
        _shutdown: tokio_util::sync::DropGuard,
    }

    impl Served {
        async fn wait_for_checks(&self, count: usize) {
            while self.checks.started.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Starts a server whose checks take `time`. Those of readiness fail with `failure`.
    fn served(failure: Option<&'static str>, time: Duration) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let (socket, shutdown) = (socket_in(directory.path()), CancellationToken::new());
        let checks = Arc::<Checks>::default();
        let counted = Arc::clone(&checks);
        let handle = move |request| {
            let checks = Arc::clone(&counted);
            async move {
                checks.started.fetch_add(1, Ordering::Relaxed);
                let running = checks.running.fetch_add(1, Ordering::Relaxed) + 1;
                checks.most_running.fetch_max(running, Ordering::Relaxed);
                tokio::time::sleep(time).await;
                checks.running.fetch_sub(1, Ordering::Relaxed);
                match (request, failure) {
                    (Request::Check(Check::Readiness), Some(reason)) => Err(reason.to_owned()),
                    (Request::Check(_), _) => Ok(None),
                    (Request::Renew(target), _) => Ok(Some(target.to_string().len())),
                }
            }
        };
        tokio::spawn(serve(listen(&socket).unwrap(), handle, shutdown.clone()));
        Served { socket, checks, _directory: directory, _shutdown: shutdown.drop_guard() }
    }

    async fn asked(socket: &Path, check: Check) -> Result<(), ControlError> {
        let socket = socket.to_owned();
        tokio::task::spawn_blocking(move || ask(&socket, check)).await.unwrap()
    }

    /// Connections of clients that send nothing.
    async fn silent(socket: &Path, count: usize) -> Vec<UnixStream> {
        let mut silent = Vec::new();
        for _ in 0..count {
            silent.push(UnixStream::connect(socket).await.unwrap());
        }
        silent
    }

    #[tokio::test]
    async fn a_check_is_answered_with_ok_or_with_the_reason() {
        let server = served(Some("not\nregistered"), Duration::ZERO);
        asked(&server.socket, Check::Liveness).await.unwrap();
        let error = asked(&server.socket, Check::Readiness).await.unwrap_err();
        assert_eq!(error.to_string(), "not registered");
        assert_eq!(server.socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_renewal_is_answered_with_its_number_whatever_its_length() {
        let server = served(None, Duration::ZERO);
        let longest = format!("{}/{}", "n".repeat(63), "p".repeat(253));
        for target in ["--all", "shop/web-0", "csi-0a1b", &longest] {
            let (socket, parsed) = (server.socket.clone(), target.parse().unwrap());
            let number = tokio::task::spawn_blocking(move || renew(&socket, &parsed)).await.unwrap();
            assert_eq!(number.unwrap(), target.len());
        }
    }

    #[tokio::test]
    async fn without_a_driver_the_error_names_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let socket = socket_in(directory.path());
        let error = asked(&socket, Check::Liveness).await.unwrap_err().to_string();
        assert!(error.contains("control.sock: No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_or_unknown_is_refused_at_once() {
        let server = served(None, Duration::ZERO);
        for line in
            ["x".repeat(1000), "certificates\n".to_owned(), "renew\n".to_owned(), "renew a b\n".to_owned()]
        {
            let mut stream = UnixStream::connect(&server.socket).await.unwrap();
            stream.write_all(line.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // Bytes that the server has not read reset the connection.
            let ended = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "the server waits for more");
            assert!(!answer.starts_with(OK.as_bytes()));
        }
        assert_eq!(server.checks.started.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn an_answer_is_never_longer_than_its_limit() {
        let server = served(Some("x".repeat(1 << 20).leak()), Duration::ZERO);
        let mut stream = UnixStream::connect(&server.socket).await.unwrap();
        stream.write_all(b"readiness\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len() as u64, MAX_ANSWER_BYTES);
    }

    #[tokio::test]
    async fn silent_clients_do_not_delay_the_next_check() {
        let server = served(None, Duration::ZERO);
        let _silent = silent(&server.socket, 3 * MAX_CONNECTIONS).await;
        let answered = tokio::time::timeout(TIMEOUT, asked(&server.socket, Check::Liveness)).await;
        answered.expect("the silent clients delay it").unwrap();
    }

    #[tokio::test]
    async fn a_check_that_is_being_answered_is_never_closed_for_another_client() {
        let server = served(None, SLOW);
        let socket = server.socket.clone();
        let answer = tokio::spawn(async move { asked(&socket, Check::Liveness).await });
        server.wait_for_checks(1).await;
        let _silent = silent(&server.socket, 3 * MAX_CONNECTIONS).await;
        answer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_check_above_the_limit_waits_and_is_answered() {
        let server = served(None, 4 * SLOW);
        let mut checks = Vec::new();
        for count in 1..=MAX_CONNECTIONS {
            let socket = server.socket.clone();
            checks.push(tokio::spawn(async move { asked(&socket, Check::Liveness).await }));
            server.wait_for_checks(count).await;
        }
        asked(&server.socket, Check::Readiness).await.unwrap();
        for check in checks {
            check.await.unwrap().unwrap();
        }
        assert!(server.checks.most_running.load(Ordering::Relaxed) <= MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn a_silent_client_is_closed_after_a_while() {
        let server = served(None, Duration::ZERO);
        let silent = silent(&server.socket, 1).await;
        // Connections are accepted in order, so the silent one was accepted before this answer.
        asked(&server.socket, Check::Liveness).await.unwrap();
        tokio::time::pause();
        tokio::time::advance(CONNECTION_TIMEOUT).await;
        tokio::time::resume();
        for mut stream in silent {
            let end = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut Vec::new())).await;
            assert_eq!(end.expect("it is still open").unwrap(), 0);
        }
    }
}
