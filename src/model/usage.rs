//! Key usages by the names that cert-manager gives them.

use super::named::named_enum;
use serde::Deserialize;

named_enum! {
    /// A key usage (RFC 5280 section 4.2.1.3) or extended key usage (section 4.2.1.12). Its name is the one that a
    /// `CertificateRequest` carries.
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    #[expect(missing_docs, reason = "each variant is the usage it is named after")]
    pub enum Usage {
        DigitalSignature = "digital signature",
        ContentCommitment = "content commitment",
        KeyEncipherment = "key encipherment",
        KeyAgreement = "key agreement",
        DataEncipherment = "data encipherment",
        CertSign = "cert sign",
        CrlSign = "crl sign",
        EncipherOnly = "encipher only",
        DecipherOnly = "decipher only",
        Any = "any",
        ServerAuth = "server auth",
        ClientAuth = "client auth",
        CodeSigning = "code signing",
        EmailProtection = "email protection",
        IpsecEndSystem = "ipsec end system",
        IpsecTunnel = "ipsec tunnel",
        IpsecUser = "ipsec user",
        Timestamping = "timestamping",
        OcspSigning = "ocsp signing",
        MicrosoftSgc = "microsoft sgc",
        NetscapeSgc = "netscape sgc",
    }
}

impl TryFrom<String> for Usage {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(|usage| usage.as_str()).collect::<Vec<_>>().join(", ");
        Self::parse(&name).map_err(|fault| format!("usages: {name:?} {fault}; accepted: {}", names()))
    }
}

impl Usage {
    /// Reads a name, or one of cert-manager's two aliases.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "signing" => Ok(Self::DigitalSignature),
            "s/mime" => Ok(Self::EmailProtection),
            _ => Self::from_name(name).ok_or_else(|| "is not a key usage".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usage_reads_back_from_its_name() {
        for usage in Usage::ALL {
            assert_eq!(Usage::parse(usage.as_str()), Ok(*usage));
        }
    }

    #[test]
    fn aliases_read_as_the_usage_they_stand_for() {
        assert_eq!(Usage::parse("signing"), Ok(Usage::DigitalSignature));
        assert_eq!(Usage::parse("s/mime"), Ok(Usage::EmailProtection));
    }

    #[test]
    fn names_are_exact() {
        for name in ["", "Server Auth", "server-auth", "serverAuth", " any"] {
            assert!(Usage::parse(name).is_err(), "{name:?}");
        }
    }
}
