//! The pages of docs/consumers. A test takes a program's configuration from its page, so that the page shows what has run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A page of docs/consumers.
pub(crate) struct Page(String);

impl Page {
    /// The page of this name.
    pub(crate) fn of(name: &str) -> Self {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/consumers");
        Self(fs::read_to_string(pages.join(name).with_extension("md")).unwrap())
    }

    /// The text of the block that is titled so (```` ```nginx title=nginx.conf ````), with what is another in the test replaced:
    /// paths and ports of a container by those of this machine. Each must be in the block.
    pub(crate) fn block(&self, title: &str, replaced: &[(&str, &str)]) -> String {
        let heading = format!(" title={title}\n");
        let (_, rest) = self.0.split_once(&heading).unwrap_or_else(|| panic!("no block is titled {title}"));
        let (block, _) = rest.split_once("\n```").expect("the end of the block");
        replaced.iter().fold(block.to_owned() + "\n", |block, (old, new)| {
            assert!(block.contains(old), "the block {title} does not have {old}");
            block.replace(old, new)
        })
    }

    /// The attributes of a volume in the manifest that is titled so, without their prefix and without the issuer, in whose place
    /// tests have the local signer.
    pub(crate) fn attributes(&self, title: &str) -> BTreeMap<String, String> {
        let manifest = self.block(title, &[]);
        let attributes = manifest.lines().filter_map(|line| line.trim().strip_prefix("csi.certlet.io/"));
        attributes
            .map(|attribute| attribute.split_once(": ").expect("NAME: VALUE"))
            .filter(|(name, _)| !name.starts_with("issuer-"))
            .map(|(name, value)| {
                let value = value.split(" #").next().unwrap_or(value).trim().trim_matches('"');
                (name.to_owned(), value.to_owned())
            })
            .collect()
    }
}
