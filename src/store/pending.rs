//! What waits while a slow signer makes up its mind: the key, the request made with it, what we know of how it stands, the
//! signer's note. One file, so that all of it is there or nothing:
//!
//! ```text
//! -----BEGIN PRIVATE KEY-----
//! -----BEGIN CERTIFICATE REQUEST-----
//! {"follows":7,"refused_at":null}
//! the note, to the end of the file
//! ```

use super::error::StoreError;
use super::files;
use crate::signer::{Progress, SignError};
use crate::x509::pem;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

const FILE: &str = "pending.pem";
const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const END: &str = "-----END CERTIFICATE REQUEST-----\n";

/// An issuance that may outlast a publish: a key, and the request made with it. It is in the store from the signer's first
/// note on; before that the signer has asked nobody for anything, and another key would do as well.
pub struct Pending {
    path: PathBuf,
    key_pem: Zeroizing<Vec<u8>>,
    csr_der: Vec<u8>,
    state: Mutex<State>,
}

/// How it stands; the first two are a line of JSON in the file.
#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    follows: Option<u64>,
    refused_at: Option<Timestamp>,
    #[serde(skip)]
    note: Option<String>,
}

impl Pending {
    pub(super) fn new(
        volume: &Path,
        key_pem: Zeroizing<Vec<u8>>,
        csr_der: Vec<u8>,
        follows: Option<u64>,
    ) -> Self {
        let state = Mutex::new(State { follows, ..State::default() });
        Self { path: path(volume), key_pem, csr_der, state }
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
        let (pair, rest) = std::str::from_utf8(contents).ok()?.split_once(END)?;
        let (key_pem, request) = contents.get(..pair.len() + END.len())?.split_at(pair.find(BEGIN)?);
        let (state, note) = rest.split_once('\n')?;
        let state: State = serde_json::from_str(state).ok()?;
        Some(Self {
            path: path.to_owned(),
            key_pem: Zeroizing::new(key_pem.to_vec()),
            csr_der: pem::blocks(request).ok()?.first()?.der.to_vec(),
            state: Mutex::new(State { note: some(note), ..state }),
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
        self.state().follows
    }

    /// When the certificate that the note led to was first refused.
    pub fn refused_at(&self) -> Option<Timestamp> {
        self.state().refused_at
    }

    /// Keeps that the certificate was refused. Without a note nobody was asked for it, and nothing is kept.
    pub fn refuse(&self, at: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.note.is_none() || state.refused_at.is_some() {
            return Ok(());
        }
        let refused = State { refused_at: Some(at), ..state.clone() };
        self.write(&refused)?;
        *state = refused;
        Ok(())
    }

    fn write(&self, state: &State) -> Result<(), StoreError> {
        let request = pem::certificate_request(&self.csr_der);
        // Two options of a number and a timestamp always encode.
        let line = serde_json::to_string(state).unwrap_or_default();
        let note = state.note.as_deref().unwrap_or_default();
        let parts = [self.key_pem.as_slice(), &request, line.as_bytes(), b"\n", note.as_bytes()];
        files::replace(&self.path, &Zeroizing::new(parts.concat()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Pending {
    fn load(&self) -> Option<String> {
        self.state().note.clone()
    }

    fn save(&self, note: &str) -> Result<(), SignError> {
        let mut state = self.state();
        let mut next = State { note: some(note), ..state.clone() };
        if next.note != state.note {
            // Another certificate, which nobody has refused yet.
            next.refused_at = None;
        }
        self.write(&next).map_err(|error| SignError::Transient {
            reason: format!("the signer's note was not kept: {error}"),
        })?;
        *state = next;
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
