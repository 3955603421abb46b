//! Fields of API objects that take a fixed amount of memory, however long they are: whoever may write the object chooses
//! their length.

use crate::model::{MAX_MESSAGE_BYTES, clipped, sha256};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// SHA-256 of a text, which compares it with another one. Empty texts and missing ones are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TextDigest(Option<[u8; 32]>);

impl TextDigest {
    /// The digest of a text.
    pub(crate) fn of(text: &str) -> Self {
        Self((!text.is_empty()).then(|| sha256(&[text.as_bytes()])))
    }

    /// Whether the text is empty or missing.
    pub(crate) fn is_empty(self) -> bool {
        self.0.is_none()
    }
}

impl<'de> Deserialize<'de> for TextDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, Self::of)
    }
}

/// A digest of a list of texts, which compares it with another one. Empty lists and missing ones are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListDigest([u8; 32]);

impl<'de> Deserialize<'de> for ListDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = ListDigest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<ListDigest, A::Error> {
                let mut digest = [0; 32];
                while let Some(TextDigest(text)) = texts.next_element()? {
                    digest = sha256(&[&digest, &text.unwrap_or_default()]);
                }
                Ok(ListDigest(digest))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// Reads the beginning of a message, for a field of the type `String`.
pub(crate) fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    read_text(deserializer, |text| clipped(text, MAX_MESSAGE_BYTES))
}

/// Reads a text, of which only the result of `read` is kept.
pub(crate) fn read_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(&str) -> T,
) -> Result<T, D::Error> {
    struct Text<F>(F);

    impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Text<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E>(self, text: &str) -> Result<T, E> {
            Ok((self.0)(text))
        }
    }

    deserializer.deserialize_str(Text(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_compare_texts_and_lists() {
        let text = |json: &str| serde_json::from_str::<TextDigest>(json).unwrap();
        assert_eq!(text(r#""a\nb""#), TextDigest::of("a\nb"));
        assert_ne!(text(r#""a""#), text(r#""b""#));
        assert_eq!(text(r#""""#), TextDigest::default());
        let list = |json: &str| serde_json::from_str::<ListDigest>(json).unwrap();
        assert_eq!(list("[]"), ListDigest::default());
        let all = [r#"[""]"#, r#"["",""]"#, r#"["a","b"]"#, r#"["b","a"]"#, r#"["ab"]"#, r#"["a"]"#, "[]"]
            .map(list);
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }
}
