//! Key usages by the names that cert-manager gives them.

use super::Usage;

impl Usage {
    /// Every usage, in the order the documentation lists them.
    pub const ALL: [Self; 21] = [
        Self::DigitalSignature,
        Self::ContentCommitment,
        Self::KeyEncipherment,
        Self::KeyAgreement,
        Self::DataEncipherment,
        Self::CertSign,
        Self::CrlSign,
        Self::EncipherOnly,
        Self::DecipherOnly,
        Self::Any,
        Self::ServerAuth,
        Self::ClientAuth,
        Self::CodeSigning,
        Self::EmailProtection,
        Self::IpsecEndSystem,
        Self::IpsecTunnel,
        Self::IpsecUser,
        Self::Timestamping,
        Self::OcspSigning,
        Self::MicrosoftSgc,
        Self::NetscapeSgc,
    ];

    /// cert-manager's name for the usage, as a `CertificateRequest` carries it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DigitalSignature => "digital signature",
            Self::ContentCommitment => "content commitment",
            Self::KeyEncipherment => "key encipherment",
            Self::KeyAgreement => "key agreement",
            Self::DataEncipherment => "data encipherment",
            Self::CertSign => "cert sign",
            Self::CrlSign => "crl sign",
            Self::EncipherOnly => "encipher only",
            Self::DecipherOnly => "decipher only",
            Self::Any => "any",
            Self::ServerAuth => "server auth",
            Self::ClientAuth => "client auth",
            Self::CodeSigning => "code signing",
            Self::EmailProtection => "email protection",
            Self::IpsecEndSystem => "ipsec end system",
            Self::IpsecTunnel => "ipsec tunnel",
            Self::IpsecUser => "ipsec user",
            Self::Timestamping => "timestamping",
            Self::OcspSigning => "ocsp signing",
            Self::MicrosoftSgc => "microsoft sgc",
            Self::NetscapeSgc => "netscape sgc",
        }
    }

    /// Reads a name, or one of cert-manager's two aliases.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "signing" => Ok(Self::DigitalSignature),
            "s/mime" => Ok(Self::EmailProtection),
            _ => Self::ALL
                .into_iter()
                .find(|usage| usage.as_str() == name)
                .ok_or_else(|| "is not a key usage".into()),
        }
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usage_reads_back_from_its_name() {
        for usage in Usage::ALL {
            assert_eq!(Usage::parse(usage.as_str()), Ok(usage));
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
