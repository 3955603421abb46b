//! The one table of attributes: the parser takes its names, defaults and rules from here, and docs/attributes.md is written from
//! it, so that the two cannot differ.

use super::Dialect;
use super::rows::TABLE;

/// Every attribute, in the order of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::enum_variant_names, reason = "each variant is the attribute it is named after")]
pub(super) enum Key {
    Signer,
    IssuerName,
    IssuerKind,
    IssuerGroup,
    CommonName,
    DnsNames,
    IpSans,
    UriSans,
    LiteralSubject,
    Organizations,
    OrganizationalUnits,
    Countries,
    Provinces,
    Localities,
    StreetAddresses,
    PostalCodes,
    SerialNumber,
    Duration,
    RenewBefore,
    IsCa,
    KeyUsages,
    KeyAlgorithm,
    KeySize,
    KeyEncoding,
    ReusePrivateKey,
    CertificateFile,
    PrivateKeyFile,
    CaFile,
    CombinedFile,
    Pkcs12Enable,
    Pkcs12Filename,
    Pkcs12Password,
    FsGroup,
    CertificateAuthorityArn,
    SigningAlgorithm,
    TemplateArn,
    RoleArn,
    UsePodIdentity,
}

impl Key {
    /// Its row of the table.
    pub(super) fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Its name with the dialect's prefix.
    pub(super) fn full(self, dialect: Dialect) -> String {
        format!("{}/{}", dialect.group(), self.row().name)
    }
}

impl Dialect {
    /// What stands before the slash.
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::CertManager => "csi.cert-manager.io",
            Self::Certlet => "csi.certlet.io",
        }
    }
}

/// What an attribute is about; the sections of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Signer,
    Names,
    Certificate,
    Key,
    Files,
    PrivateCa,
}

/// What holds when an attribute is not given, or is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    /// Nothing.
    None,
    /// This value.
    Value(&'static str),
    /// Something that depends on other attributes: told in words, worked out by the parser.
    Told(&'static str),
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) name: &'static str,
    pub(super) topic: Topic,
    /// Whether only the `csi.certlet.io/` dialect has it.
    pub(super) certlet_only: bool,
    /// Whether variables in its value are replaced.
    pub(super) templated: bool,
    /// Whether its value must not be shown.
    pub(super) secret: bool,
    cert_manager: Default,
    certlet: Default,
    /// What is accepted: the end of an error message, and a column of the documentation.
    pub(super) rule: &'static str,
    /// What it is for.
    pub(super) about: &'static str,
}

impl Row {
    /// What holds in a dialect when the attribute is not given.
    pub(super) fn default(&self, dialect: Dialect) -> Default {
        match dialect {
            Dialect::CertManager => self.cert_manager,
            Dialect::Certlet => self.certlet,
        }
    }

    /// Whether a dialect has the attribute.
    pub(super) fn belongs_to(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Certlet || !self.certlet_only
    }

    pub(super) const fn of(
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

    pub(super) const fn defaults(mut self, cert_manager: Default, certlet: Default) -> Self {
        self.cert_manager = cert_manager;
        self.certlet = certlet;
        self
    }

    pub(super) const fn default_value(self, value: &'static str) -> Self {
        self.defaults(Default::Value(value), Default::Value(value))
    }

    pub(super) const fn told(self, text: &'static str) -> Self {
        self.defaults(Default::Told(text), Default::Told(text))
    }

    pub(super) const fn templated(mut self) -> Self {
        self.templated = true;
        self
    }

    pub(super) const fn certlet_only(mut self) -> Self {
        self.certlet_only = true;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::{SignerKind, Usage};

    #[test]
    fn every_key_finds_its_own_row_and_every_name_is_there_once() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.key as usize, place, "{}", row.name);
            assert_eq!(TABLE.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
        }
    }

    #[test]
    fn rules_tell_every_value_there_is() {
        for usage in Usage::ALL {
            assert!(Key::KeyUsages.row().rule.contains(&format!("`{usage}`")), "{usage}");
        }
        for signer in SignerKind::ALL {
            assert!(Key::Signer.row().rule.contains(&format!("`{signer}`")), "{signer}");
        }
    }
}
