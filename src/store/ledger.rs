//! A signer's own small file beside the volumes, for what is to outlast them.

use super::files;
use crate::signer::Ledger;
use std::path::PathBuf;

/// A file at the top of the store.
#[derive(Clone, Debug)]
pub struct LedgerFile {
    pub(super) path: PathBuf,
}

impl Ledger for LedgerFile {
    fn load(&self) -> String {
        let text = files::read(&self.path).unwrap_or_else(|error| {
            tracing::warn!(%error, "a signer's list is lost");
            None
        });
        text.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    fn save(&self, text: &str) {
        if let Err(error) = files::replace(&self.path, text.as_bytes()) {
            tracing::warn!(%error, "a signer's list was not kept; a restart will not know of it");
        }
    }
}
