//! The shape of the table of attributes. The parser takes names, defaults and rules from the table, and docs/attributes.md
//! is generated from it, so that the two cannot differ.

use super::rows::{Key, TABLE};
use crate::model::Dialect;

impl Key {
    /// Its row of the table.
    pub(super) fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name with the prefix.
    pub(super) fn full(self, dialect: Dialect) -> String {
        format!("{}/{}", dialect.prefix(), self.row().name)
    }
}

impl Dialect {
    /// The attribute prefix, without its slash.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::CertManager => "csi.cert-manager.io",
            Self::Certlet => "csi.certlet.io",
        }
    }
}

/// The sections of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Signer,
    Names,
    Certificate,
    Key,
    Files,
    PrivateCa,
}

/// The value of an attribute that is missing or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    /// No value.
    None,
    /// This value.
    Value(&'static str),
    /// A value that the parser derives from other attributes. The text describes it in the documentation.
    Derived(&'static str),
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) name: &'static str,
    pub(super) topic: Topic,
    /// Whether only the prefix `csi.certlet.io/` has it.
    pub(super) certlet_only: bool,
    /// Whether variables in its value are replaced.
    pub(super) templated: bool,
    /// Whether messages must not show its value.
    pub(super) secret: bool,
    cert_manager: Default,
    certlet: Default,
    /// What is accepted: the end of an error message, and a column of the documentation.
    pub(super) rule: &'static str,
    /// Its purpose.
    pub(super) about: &'static str,
}

impl Row {
    /// The default under a prefix.
    pub(super) fn default(&self, dialect: Dialect) -> Default {
        match dialect {
            Dialect::CertManager => self.cert_manager,
            Dialect::Certlet => self.certlet,
        }
    }

    /// Whether the attribute exists under a prefix.
    pub(super) fn belongs_to(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Certlet || !self.certlet_only
    }

    pub(super) const fn new(
        key: Key,
        topic: Topic,
        name: &'static str,
        about: &'static str,
        rule: &'static str,
    ) -> Self {
        Self {
            key,
            name,
            topic,
            certlet_only: false,
            templated: false,
            secret: false,
            cert_manager: Default::None,
            certlet: Default::None,
            rule,
            about,
        }
    }

    pub(super) const fn defaults(self, cert_manager: Default, certlet: Default) -> Self {
        Self { cert_manager, certlet, ..self }
    }

    pub(super) const fn default_value(self, value: &'static str) -> Self {
        self.defaults(Default::Value(value), Default::Value(value))
    }

    pub(super) const fn derived(self, text: &'static str) -> Self {
        self.defaults(Default::Derived(text), Default::Derived(text))
    }

    pub(super) const fn templated(self) -> Self {
        Self { templated: true, ..self }
    }

    pub(super) const fn certlet_only(self) -> Self {
        Self { certlet_only: true, ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SignerKind, Usage};

    #[test]
    fn every_key_finds_its_own_row_and_every_name_is_there_once() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.key as usize, index, "{}", row.name);
            assert_eq!(TABLE.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
        }
    }

    #[test]
    fn rules_name_every_value_there_is() {
        for usage in Usage::ALL {
            assert!(Key::KeyUsages.row().rule.contains(&format!("`{usage}`")), "{usage}");
        }
        for signer in SignerKind::ALL {
            assert!(Key::Signer.row().rule.contains(&format!("`{signer}`")), "{signer}");
        }
    }
}
