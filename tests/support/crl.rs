//! A CA that revokes, and a web server on loopback for its lists, which can misbehave.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "support for tests"
)]

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use time::OffsetDateTime;

/// A CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A list, as it is to be made.
#[derive(Clone)]
pub struct List {
    pub number: u64,
    /// Seconds from now.
    pub begins: i64,
    pub ends: i64,
    /// Serial numbers.
    pub revoked: Vec<Vec<u8>>,
    /// The URL of its issuing distribution point.
    pub point: Option<String>,
}

impl Default for List {
    fn default() -> Self {
        Self { number: 1, begins: -60, ends: 3600, revoked: Vec::new(), point: None }
    }
}

impl List {
    pub fn number(number: u64) -> Self {
        Self { number, ..Self::default() }
    }
}

impl Ca {
    /// A root.
    pub fn root(name: &str) -> Self {
        Self::new(name, None, None)
    }

    /// A CA below another one, whose certificate names a distribution point.
    pub fn below(parent: &Self, name: &str, point: &str) -> Self {
        Self::new(name, Some(parent), Some(point))
    }

    fn new(name: &str, parent: Option<&Self>, point: Option<&str>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - Duration::from_hours(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::from_hours(240);
        let uris = point.map(|point| CrlDistributionPoint { uris: vec![point.to_owned()] });
        params.crl_distribution_points = uris.into_iter().collect();
        let certificate: Certificate = match parent {
            Some(parent) => params.signed_by(&key, &parent.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self { issuer: Issuer::new(params, key), pem: certificate.pem().replace('\r', "") }
    }

    /// Flags that let the local signer sign with it. `above` are the certificates up to the root.
    pub fn flags(&self, directory: &Path, above: &[&Self]) -> [String; 2] {
        let chain: String = [self].iter().chain(above).map(|ca| ca.pem.as_str()).collect();
        let flag = |name: &str, text: &str| {
            let file = directory.join(name);
            fs::write(&file, text).unwrap();
            format!("--local-ca-{name}={}", file.display())
        };
        [flag("cert", &chain), flag("key", &self.issuer.key().serialize_pem())]
    }

    /// A list that it signs, DER.
    pub fn list(&self, list: &List) -> Vec<u8> {
        let at = |seconds| OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        let revoked = list.revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: at(-1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: at(list.begins),
            next_update: at(list.ends),
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: list.point.as_ref().map(|point| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris: vec![point.clone()] },
                scope: None,
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// How the server answers.
#[derive(Clone)]
pub enum Answer {
    Body(Vec<u8>),
    Status(u16),
    Redirect(String),
    /// Announces more bytes than anybody takes, and sends none.
    Announced(u64),
    /// Sends without end.
    Endless,
    /// Accepts the connection and says nothing.
    Silent,
}

type Answers = Arc<Mutex<HashMap<String, Answer>>>;

/// A web server.
pub struct Server {
    port: u16,
    answers: Answers,
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Self {
        let mut server = Self {
            port: 0,
            answers: Answers::default(),
            requests: Arc::default(),
            ended: Arc::default(),
            thread: None,
        };
        server.listen();
        server
    }

    /// Listens, at the same port as before.
    pub fn listen(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (answers, requests) = (Arc::clone(&self.answers), Arc::clone(&self.requests));
        self.ended = Arc::default();
        let ended = Arc::clone(&self.ended);
        self.thread = Some(thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (answers, requests) = (Arc::clone(&answers), Arc::clone(&requests));
                        thread::spawn(move || answer(stream, &answers, &requests));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }));
    }

    /// Goes down.
    pub fn stop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    pub fn set(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub fn serve(&self, path: &str, body: Vec<u8>) {
        self.set(path, Answer::Body(body));
    }

    /// The paths that were asked for.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(mut stream: TcpStream, answers: &Answers, requests: &Mutex<Vec<String>>) {
    stream.set_nonblocking(false).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.lock().unwrap().push(path.clone());
    let found = answers.lock().unwrap().get(&path).cloned().unwrap_or(Answer::Status(404));
    let mut respond = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body))
    };
    // The client may have gone.
    let _sent = match found {
        Answer::Body(body) => {
            let tag = format!(
                "\"{:x}\"",
                body.iter().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte))
            );
            if head.to_ascii_lowercase().contains(&format!("if-none-match: {tag}")) {
                respond("304 Not Modified", &format!("ETag: {tag}"), &[])
            } else {
                respond("200 OK", &format!("ETag: {tag}\r\nContent-Length: {}", body.len()), &body)
            }
        }
        Answer::Status(status) => respond(&format!("{status} Status"), "Content-Length: 0", &[]),
        Answer::Redirect(to) => respond("302 Found", &format!("Location: {to}\r\nContent-Length: 0"), &[]),
        Answer::Announced(bytes) => respond("200 OK", &format!("Content-Length: {bytes}"), &[]),
        Answer::Endless => {
            let mut written = respond("200 OK", "Content-Type: application/pkix-crl", &[]);
            while written.is_ok() {
                written = stream.write_all(&[0x30; 8192]);
            }
            written
        }
        Answer::Silent => {
            thread::sleep(Duration::from_mins(1));
            Ok(())
        }
    };
}
