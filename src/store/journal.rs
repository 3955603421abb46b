//! A small file of a signer in the root of the store, for work that outlasts a volume.

use super::files;
use std::path::PathBuf;

/// A file at the top of the store.
#[derive(Clone, Debug)]
pub struct JournalFile {
    pub(crate) path: PathBuf,
}

impl JournalFile {
    /// Its text; empty if there is no file.
    pub(crate) fn load(&self) -> String {
        let text = files::read(&self.path).unwrap_or_else(|error| {
            tracing::warn!(%error, "a signer's journal is lost");
            None
        });
        text.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Replaces its text. Best effort.
    pub(crate) fn save(&self, text: &str) {
        if let Err(error) = files::replace(&self.path, text.as_bytes()) {
            tracing::warn!(%error, "a signer's journal was not saved; after a restart its newest entries are missing");
        }
    }
}
