//! A signer's own small file beside the volumes, for work that outlasts them.

use super::files;
use std::path::PathBuf;

/// A file at the top of the store.
#[derive(Clone, Debug)]
pub struct JournalFile {
    pub(crate) path: PathBuf,
}

impl JournalFile {
    /// Its text; empty where there is none.
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
