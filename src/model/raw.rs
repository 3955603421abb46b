//! The attributes as the pod's author wrote them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroize;

/// The attributes as the pod's author wrote them, without the kubelet's own. A record keeps them, and a restart parses
/// them again. Clones share them: they can be 64 KiB, and a publish that waits has several.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawAttributes(Arc<Attributes>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Attributes(BTreeMap<String, String>);

impl RawAttributes {
    /// The attributes by their full keys.
    pub(crate) fn map(&self) -> &BTreeMap<String, String> {
        &self.0.0
    }

    /// The same, to be changed.
    pub(crate) fn map_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut Arc::make_mut(&mut self.0).0
    }

    /// The value of one attribute by its full key.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.map().get(key).map(String::as_str)
    }

    /// The size of all names and values in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.map().iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

impl FromIterator<(String, String)> for RawAttributes {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(attributes: I) -> Self {
        Self(Arc::new(Attributes(attributes.into_iter().collect())))
    }
}

/// Shows keys only: the value of a mistyped key may be a password.
impl fmt::Debug for RawAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.map().keys()).finish()
    }
}

/// Overwrites passwords in memory.
impl Drop for Attributes {
    fn drop(&mut self) {
        self.0
            .iter_mut()
            .filter(|(key, _)| key.ends_with("pkcs12-password"))
            .for_each(|(_, value)| value.zeroize());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let raw: RawAttributes = [
            ("csi.certlet.io/pkcs12-password".to_owned(), "hunter2".to_owned()),
            ("csi.certlet.io/pkcs12-pasword".to_owned(), "hunter3".to_owned()),
        ]
        .into_iter()
        .collect();
        let debug = format!("{raw:?}");
        assert!(debug.contains("csi.certlet.io/pkcs12-password"), "{debug}");
        assert!(!debug.contains("hunter"), "{debug}");
    }

    #[test]
    fn clones_share_the_attributes_until_one_is_changed() {
        let raw: RawAttributes = [("a/b".to_owned(), "c".to_owned())].into_iter().collect();
        let mut clone = raw.clone();
        assert!(std::ptr::eq(raw.map(), clone.map()));
        clone.map_mut().clear();
        assert_eq!((raw.map().len(), clone.map().len()), (1, 0));
    }

    #[test]
    fn a_record_holds_the_attributes_as_a_plain_map() {
        let raw: RawAttributes = [("a/b".to_owned(), "c".to_owned())].into_iter().collect();
        let json = serde_json::to_string(&raw).unwrap();
        assert_eq!(json, r#"{"a/b":"c"}"#);
        assert_eq!(serde_json::from_str::<RawAttributes>(&json).unwrap(), raw);
    }
}
