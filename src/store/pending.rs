//! What waits while a slow signer makes up its mind: the key, the request made with it, the generation that its certificate
//! is to follow, the signer's note. One file, so that all of it is there or nothing:
//!
//! ```text
//! -----BEGIN PRIVATE KEY-----
//! -----BEGIN CERTIFICATE REQUEST-----
//! after-generation: 7
//! the note, to the end of the file
//! ```

use super::error::StoreError;
use super::files;
use crate::signer::{Progress, SignError};
use crate::x509::pem;
use jiff::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

const FILE: &str = "pending.pem";
const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const END: &str = "-----END CERTIFICATE REQUEST-----\n";
const AFTER: &str = "after-generation: ";
/// The generation that a first certificate follows.
const NONE: &str = "none";

/// An issuance that may outlast a publish: a key, and the request made with it. It is in the store from the signer's first
/// note on; before that the signer has asked nobody for anything, and another key would do as well.
pub struct Pending {
    path: PathBuf,
    key_pem: Zeroizing<Vec<u8>>,
    csr_der: Vec<u8>,
    follows: Option<u64>,
    note: Mutex<Option<String>>,
}

impl Pending {
    pub(super) fn new(
        volume: &Path,
        key_pem: Zeroizing<Vec<u8>>,
        csr_der: Vec<u8>,
        follows: Option<u64>,
    ) -> Self {
        Self { path: path(volume), key_pem, csr_der, follows, note: Mutex::default() }
    }

    /// What an earlier call, or process, left.
    pub(super) fn load(volume: &Path) -> Result<Option<Self>, StoreError> {
        let path = path(volume);
        let Some(contents) = files::read(&path)? else { return Ok(None) };
        let pending = Self::parse(&path, &contents);
        if pending.is_none() {
            // Without it a signer begins anew, which costs a signing and nothing else.
            tracing::warn!(path = %path.display(), "what waited for a signer cannot be read, and is lost");
        }
        Ok(pending)
    }

    fn parse(path: &Path, contents: &[u8]) -> Option<Self> {
        let (pair, note) = std::str::from_utf8(contents).ok()?.split_once(END)?;
        let (key_pem, request) = contents.get(..pair.len() + END.len())?.split_at(pair.find(BEGIN)?);
        let (follows, note) = note.strip_prefix(AFTER)?.split_once('\n')?;
        Some(Self {
            path: path.to_owned(),
            key_pem: Zeroizing::new(key_pem.to_vec()),
            csr_der: pem::blocks(request).ok()?.first()?.der.to_vec(),
            follows: if follows == NONE { None } else { Some(follows.parse().ok()?) },
            note: Mutex::new(some(note)),
        })
    }

    /// Whether something waits.
    pub(super) fn exists(volume: &Path) -> bool {
        path(volume).exists()
    }

    /// Forgets it: the signing has succeeded, or has failed for good.
    pub(super) fn clear(volume: &Path) -> Result<(), StoreError> {
        files::remove_file(&path(volume))
    }

    /// Removes what a crash in the middle of a save can have left.
    pub(super) fn sweep(volume: &Path) -> Result<(), StoreError> {
        files::remove_file(&files::temporary(&path(volume)))
    }

    /// The private key, PKCS#8 in PEM.
    pub fn key_pem(&self) -> &[u8] {
        &self.key_pem
    }

    /// The PKCS#10 request, DER.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr_der
    }

    /// The generation that the volume had when this was begun, none before its first certificate. With another one live,
    /// the certificate has been delivered, and the process ended before it could clear this away.
    pub fn follows(&self) -> Option<u64> {
        self.follows
    }

    /// When the last note was left, by the file system's clock; none before the first.
    pub fn noted_at(&self) -> Option<Timestamp> {
        Timestamp::try_from(fs::metadata(&self.path).ok()?.modified().ok()?).ok()
    }
}

impl Progress for Pending {
    fn load(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn save(&self, note: &str) -> Result<(), SignError> {
        let mut saved = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        let request = pem::certificate_request(&self.csr_der);
        let follows = self.follows.map_or_else(|| NONE.to_owned(), |generation| generation.to_string());
        let rest = format!("{AFTER}{follows}\n{note}");
        let contents = Zeroizing::new([self.key_pem.as_slice(), &request, rest.as_bytes()].concat());
        files::replace(&self.path, &contents).map_err(|error| SignError::Transient {
            reason: format!("the signer's note was not kept: {error}"),
        })?;
        *saved = some(note);
        Ok(())
    }
}

/// An empty note is none.
fn some(note: &str) -> Option<String> {
    (!note.is_empty()).then(|| note.to_owned())
}

fn path(volume: &Path) -> PathBuf {
    volume.join(FILE)
}
