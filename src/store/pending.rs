//! What waits while a slow signer makes up its mind: the key, the request made with it, the signer's note.

use super::error::{Attempt, StoreError};
use super::files;
use crate::signer::{Progress, SignError};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY: &str = "key.pem";
const REQUEST: &str = "request.der";
const NOTE: &str = "note";

/// The place in one volume's directory for an issuance that may outlast a publish.
#[derive(Clone, Debug)]
pub struct PendingSlot {
    directory: PathBuf,
}

/// A key and the request made with it.
pub struct PendingRequest {
    /// The private key, as it was given to [`PendingSlot::save_request`].
    pub key_pem: Zeroizing<Vec<u8>>,
    /// The PKCS#10 request, DER.
    pub csr_der: Vec<u8>,
}

impl PendingSlot {
    pub(super) fn new(volume: &Path) -> Self {
        Self { directory: volume.join("pending") }
    }

    /// Keeps a key and its request in place of any earlier pair and its note. Both are there afterwards, or neither: the
    /// directory is filled under another name.
    pub fn save_request(&self, key_pem: &[u8], csr_der: &[u8]) -> Result<(), StoreError> {
        self.clear()?;
        let staged = self.staged();
        let saved = files::ensure_dir(&staged, 0o700)
            .and_then(|()| files::create(&staged.join(KEY), 0o600, key_pem))
            .and_then(|_| files::create(&staged.join(REQUEST), 0o600, csr_der))
            .and_then(|_| fs::rename(&staged, &self.directory).attempt("put in place", &self.directory));
        if saved.is_err() {
            files::discard(files::remove_tree(&staged));
        }
        saved
    }

    /// The key and its request, if some wait.
    pub fn load_request(&self) -> Result<Option<PendingRequest>, StoreError> {
        let key = files::read(&self.directory.join(KEY))?;
        let csr = files::read(&self.directory.join(REQUEST))?;
        Ok(key.zip(csr).map(|(key_pem, csr)| PendingRequest { key_pem, csr_der: csr.to_vec() }))
    }

    /// Forgets the pair and the note: the signing has succeeded, or has failed for good.
    pub fn clear(&self) -> Result<(), StoreError> {
        self.sweep()?;
        let retired = self.retired();
        match fs::rename(&self.directory, &retired) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => {
                renamed.attempt("retire", &self.directory)?;
                files::remove_tree(&retired)
            }
        }
    }

    /// Removes what a crash in the middle of [`Self::save_request`] or [`Self::clear`] can have left.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        files::remove_tree(&self.staged())?;
        files::remove_tree(&self.retired())
    }

    fn staged(&self) -> PathBuf {
        self.directory.with_added_extension("tmp")
    }

    fn retired(&self) -> PathBuf {
        self.directory.with_added_extension("old")
    }
}

impl Progress for PendingSlot {
    fn load(&self) -> Option<String> {
        let note = files::read(&self.directory.join(NOTE)).unwrap_or_else(|error| {
            // Without its note a signer begins anew, which costs a signing and nothing else.
            tracing::warn!(%error, "a signer's note is lost");
            None
        })?;
        String::from_utf8(note.to_vec()).ok()
    }

    fn save(&self, note: &str) -> Result<(), SignError> {
        files::replace(&self.directory.join(NOTE), note.as_bytes()).map_err(|error| SignError::Transient {
            reason: format!("the signer's note was not kept: {error}"),
        })
    }
}
