//! A pending issuance in the store, as signers and the issuance see it.

use crate::model::Failure;
use crate::signer::Checkpoint;
use crate::store::CheckpointFile;
use crate::x509::pem;

impl Checkpoint for CheckpointFile {
    fn load(&self) -> Option<String> {
        self.checkpoint()
    }

    fn save(&self, text: &str) -> Result<(), Failure> {
        let unsaved = |error| Failure::transient(format!("the signer's checkpoint was not saved: {error}"));
        CheckpointFile::save(self, text).map_err(unsaved)
    }
}

/// The signing request, DER.
pub(super) fn stored_csr(checkpoint: &CheckpointFile) -> Result<Vec<u8>, Failure> {
    let blocks = pem::blocks(&checkpoint.csr_pem);
    let first = blocks.ok().and_then(|mut blocks| blocks.drain(..).next());
    first
        .map(|block| block.der.to_vec())
        .ok_or_else(|| Failure::transient("the stored signing request is not PEM"))
}
