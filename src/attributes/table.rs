//! The shape of the table of attributes. The parser takes names, defaults and rules from the table, and docs/attributes.md
//! is generated from it, so that the two cannot differ.

use super::rows::{Key, TABLE};
use crate::model::{Dialect, SignerKind};

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
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::CertManager => "csi.cert-manager.io",
            Self::CsiDriverSpiffe => "spiffe.csi.cert-manager.io",
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

/// Under which prefixes variables in a value are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variables {
    Never,
    /// Under the prefix `csi.certlet.io/` only.
    Certlet,
    Always,
}

/// Whether a prefix has an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Never,
    /// Only if the operator allows it: `--spiffe-attributes`.
    IfAllowed,
    Always,
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) topic: Topic,
    pub(super) name: &'static str,
    /// Its purpose.
    pub(super) about: &'static str,
    /// What is accepted: the end of an error message, and a column of the documentation.
    pub(super) rule: &'static str,
    pub(super) options: Options,
}

/// What is special about an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Whether the prefix `csi.cert-manager.io/` lacks it.
    pub(super) certlet_only: bool,
    /// Whether the prefix `spiffe.csi.cert-manager.io/` has it.
    pub(super) csi_driver_spiffe: Presence,
    /// The only signer that supports it; `None` if all do.
    pub(super) signer: Option<SignerKind>,
    /// Whether `literal-subject` excludes it.
    pub(super) part_of_subject: bool,
    /// Whether variables in its value are replaced.
    pub(super) variables: Variables,
    /// Whether messages must not show its value.
    pub(super) secret: bool,
    /// The default under the prefix `csi.cert-manager.io/`.
    pub(super) cert_manager: Default,
    /// The default under the prefix `csi.certlet.io/`.
    pub(super) certlet: Default,
}

impl Row {
    /// The default under a prefix.
    pub(super) fn default(&self, dialect: Dialect) -> Default {
        match dialect {
            Dialect::CertManager => self.options.cert_manager,
            Dialect::CsiDriverSpiffe | Dialect::Certlet => self.options.certlet,
        }
    }

    /// Whether variables in its value are replaced under a prefix.
    pub(super) fn has_variables(&self, dialect: Dialect) -> bool {
        match self.options.variables {
            Variables::Never => false,
            Variables::Certlet => !dialect.is_peers(),
            Variables::Always => true,
        }
    }

    /// Whether the attribute exists under a prefix, if the operator allows it.
    pub(super) fn belongs_to(&self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::CertManager => !self.options.certlet_only,
            Dialect::CsiDriverSpiffe => self.options.csi_driver_spiffe != Presence::Never,
            Dialect::Certlet => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::OptionalAttribute;
    use crate::model::Usage;

    #[test]
    fn every_key_finds_its_own_row_and_every_name_is_there_once() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.key as usize, index, "{}", row.name);
            assert_eq!(TABLE.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
        }
    }

    #[test]
    fn every_attribute_that_an_operator_can_allow_is_in_the_table() {
        let in_table: Vec<_> = TABLE
            .iter()
            .filter(|row| row.options.csi_driver_spiffe == Presence::IfAllowed)
            .map(|row| row.name)
            .collect();
        let mut allowed: Vec<_> = OptionalAttribute::ALL.iter().map(|attribute| attribute.as_str()).collect();
        allowed.sort_by_key(|name| in_table.iter().position(|other| other == name));
        assert_eq!(allowed, in_table);
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
