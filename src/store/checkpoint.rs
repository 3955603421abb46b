//! What the store keeps of a pending signing: the key, its request, and the signer's checkpoint. It is one file, so that
//! either all of it exists or nothing:
//!
//! ```text
//! -----BEGIN PRIVATE KEY-----
//! -----BEGIN CERTIFICATE REQUEST-----
//! {"follows":7,"refused_at":null}
//! the signer's checkpoint, to the end of the file
//! ```

use super::error::StoreError;
use super::{Store, files};
use crate::model::VolumeId;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE: &str = "pending.pem";
const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const END: &str = "-----END CERTIFICATE REQUEST-----\n";

/// The checkpoint of an issuance that can take longer than one publish. The file exists from the first save on. Before
/// that no signer was asked, so a lost key does not matter.
pub(crate) struct CheckpointFile {
    path: PathBuf,
    /// The private key, PKCS#8 in PEM.
    pub(crate) key_pem: Zeroizing<Vec<u8>>,
    /// The PKCS#10 request, PEM.
    pub(crate) csr_pem: Vec<u8>,
    state: Mutex<State>,
}

/// A line of JSON in the file. The checkpoint is not part of that line, but follows it.
#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    follows: Option<u64>,
    refused_at: Option<Timestamp>,
    /// Why the signer refused the request; none if the verification refused the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused_because: Option<String>,
    /// The issuer that is asked; text of older versions has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// The digest of the class that the request was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    #[serde(skip)]
    checkpoint: Option<String>,
}

/// A refusal of the request, or of the certificate that was signed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// When it was refused.
    pub(crate) at: Timestamp,
    /// Why the signer refused the request; none if the verification refused the certificate.
    pub(crate) by_signer: Option<String>,
}

impl Store {
    /// The checkpoint of a new issuance. The file exists from the first save on. The volume must have a record by then,
    /// because a restart removes a volume without a record as unfinished.
    pub(crate) fn new_checkpoint(
        &self,
        volume: &VolumeId,
        key_pem: Zeroizing<Vec<u8>>,
        csr_pem: Vec<u8>,
        follows: Option<u64>,
    ) -> CheckpointFile {
        let state = Mutex::new(State { follows, ..State::default() });
        CheckpointFile { path: path(&self.dir_of(volume)), key_pem, csr_pem, state }
    }

    /// The checkpoint that an earlier call or process saved.
    pub(crate) fn checkpoint(&self, volume: &VolumeId) -> Result<Option<CheckpointFile>, StoreError> {
        let path = path(&self.dir_of(volume));
        let Some(contents) = files::read(&path)? else { return Ok(None) };
        let loaded = CheckpointFile::parse(&path, &contents);
        if loaded.is_none() {
            // Without it the issuance starts again, which costs one more signing.
            tracing::warn!(path = %path.display(), "the checkpoint of an issuance cannot be read; the issuance starts again");
        }
        Ok(loaded)
    }

    /// Whether there is a checkpoint.
    pub(crate) fn has_checkpoint(&self, volume: &VolumeId) -> bool {
        path(&self.dir_of(volume)).exists()
    }

    /// Removes the checkpoint: the issuance has succeeded.
    pub(crate) fn clear_checkpoint(&self, volume: &VolumeId) -> Result<(), StoreError> {
        files::remove_file(&path(&self.dir_of(volume)))
    }
}

impl CheckpointFile {
    fn parse(path: &Path, contents: &[u8]) -> Option<Self> {
        let (pair, rest) = std::str::from_utf8(contents).ok()?.split_once(END)?;
        let (key_pem, csr_pem) = contents.get(..pair.len() + END.len())?.split_at(pair.find(BEGIN)?);
        let (state, checkpoint) = rest.split_once('\n')?;
        let state: State = serde_json::from_str(state).ok()?;
        Some(Self {
            path: path.to_owned(),
            key_pem: Zeroizing::new(key_pem.to_vec()),
            csr_pem: csr_pem.to_vec(),
            state: Mutex::new(State { checkpoint: non_empty(checkpoint), ..state }),
        })
    }

    /// The generation that the volume had when the issuance began; none before its first certificate. If another
    /// generation is live, the certificate is already in use, and the process ended before it removed this file.
    pub(crate) fn follows(&self) -> Option<u64> {
        self.state.lock().follows
    }

    /// The same, of a request to this issuer.
    pub(crate) fn of_issuer(self, issuer: Option<String>) -> Self {
        self.state.lock().issuer = issuer;
        self
    }

    /// Whether the request may be one to this issuer.
    pub(crate) fn asks(&self, issuer: Option<&str>) -> bool {
        let state = self.state.lock();
        state.issuer.is_none() || state.issuer.as_deref() == issuer
    }

    /// The same, with the digest of the class that the request is made by.
    pub(crate) fn of_class(self, class: Option<String>) -> Self {
        self.state.lock().class = class;
        self
    }

    /// Whether the request was made by that class.
    pub(crate) fn is_of_class(&self, class: Option<&str>) -> bool {
        self.state.lock().class.as_deref() == class
    }

    /// Records the generation that a new trust bundle has made of the certificate in use.
    pub(crate) fn follow(&self, generation: u64) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let next = State { follows: Some(generation), ..state.clone() };
        self.write(&mut state, next)
    }

    /// The refusal of the request, or of its certificate, if there was one.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let state = self.state.lock();
        state.refused_at.map(|at| Refusal { at, by_signer: state.refused_because.clone() })
    }

    /// Saves a refusal. A refusal by the verification does not replace an earlier refusal, because each attempt verifies
    /// the same certificate again. Without a checkpoint no signer was asked, and nothing is saved.
    pub(crate) fn refuse(&self, refusal: Refusal) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if state.checkpoint.is_none() || refusal.by_signer.is_none() && state.refused_at.is_some() {
            return Ok(());
        }
        let refused =
            State { refused_at: Some(refusal.at), refused_because: refusal.by_signer, ..state.clone() };
        self.write(&mut state, refused)
    }

    /// The signer's checkpoint.
    pub(crate) fn checkpoint(&self) -> Option<String> {
        self.state.lock().checkpoint.clone()
    }

    /// Saves the signer's checkpoint; an empty text means none. A changed checkpoint belongs to another request, so it
    /// clears the refusal.
    pub(crate) fn save(&self, checkpoint: &str) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mut next = State { checkpoint: non_empty(checkpoint), ..state.clone() };
        if next.checkpoint != state.checkpoint {
            (next.refused_at, next.refused_because) = (None, None);
        }
        self.write(&mut state, next)
    }

    /// Replaces the file, and then the state in memory.
    fn write(&self, state: &mut State, next: State) -> Result<(), StoreError> {
        // Options of a number, a timestamp and a string always encode.
        let line = serde_json::to_string(&next).unwrap_or_default();
        let checkpoint = next.checkpoint.as_deref().unwrap_or_default();
        let parts = [&self.key_pem, &*self.csr_pem, line.as_bytes(), b"\n", checkpoint.as_bytes()];
        files::replace(&self.path, &Zeroizing::new(parts.concat()))?;
        *state = next;
        Ok(())
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The path of the checkpoint in a volume's directory.
pub(super) fn path(volume: &Path) -> PathBuf {
    volume.join(FILE)
}
