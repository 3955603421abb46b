//! What a volume asks for, typed: every default filled in, every variable expanded.

use super::arn::Arn;
use super::distinguished_name::DistinguishedName;
use super::doubts::Doubts;
use super::files::Files;
use super::named::named_enum;
use super::trust_domain::TrustDomain;
use super::trust_source::TrustSource;
use super::usage::Usage;
use super::volume_class::VolumeClass;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The attribute prefix of a volume, which decides the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `csi.cert-manager.io/`: meaning and defaults of cert-manager's csi-driver.
    CertManager,
    /// `spiffe.csi.cert-manager.io/`: meaning and defaults of csi-driver-spiffe.
    CsiDriverSpiffe,
    /// `csi.certlet.io/`: ECDSA P-256, PKCS#8, 24 hours.
    #[default]
    Certlet,
}

impl Dialect {
    /// The prefix of a volume without attributes, by the name of the driver.
    pub(crate) fn of_driver(name: &str) -> Self {
        if name == "spiffe.csi.cert-manager.io" { Self::CsiDriverSpiffe } else { Self::Certlet }
    }

    /// Whether it is that of another driver, which certlet replaces. Then certlet serves what that driver serves.
    pub(crate) fn is_peers(self) -> bool {
        match self {
            Self::CertManager | Self::CsiDriverSpiffe => true,
            Self::Certlet => false,
        }
    }
}

named_enum! {
    /// Who signs the certificate signing request. Its name is the value of the `signer` attribute and metric label.
    pub enum SignerKind {
        /// A cert-manager `CertificateRequest`, whatever issuer it names.
        CertManager = "cert-manager",
        /// AWS Private CA, called directly.
        AcmPca = "acm-pca",
        /// The CA inside this process, for the demo and for tests.
        Local = "local",
    }
}

/// Everything that a volume asks for: certificate, key, files and signer. Valid by construction: only
/// [`crate::attributes`] makes one.
#[derive(Clone, Debug)]
pub struct CertificateSpec {
    /// The prefix of the attributes.
    pub dialect: Dialect,
    /// The signer, with what only this signer needs.
    pub signer: SignerSpec,
    /// `spiffe`, and every volume of csi-driver-spiffe: names and usages are those of the pod's SPIFFE ID.
    pub is_spiffe: bool,
    /// Subject of the certificate; may be empty.
    pub subject: Subject,
    /// Subject alternative names.
    pub sans: SubjectAltNames,
    /// `services`: the Services whose names are among the DNS names.
    pub services: Vec<String>,
    /// Whether `ip-sans` has `${POD_IP}`, and the pod's address is not among the addresses yet. See [`Self::with_pod_ip`].
    pub wants_pod_ip: bool,
    /// Requested lifetime; positive.
    pub duration: Duration,
    /// Whether to request a CA certificate (RFC 5280 section 4.2.1.9).
    pub is_ca: bool,
    /// Key usages and extended key usages, in the order given, without duplicates.
    pub usages: Vec<Usage>,
    /// The private key.
    pub key: KeySpec,
    /// The files of a generation.
    pub files: Files,
    /// The group that may read the key: the `fs-group` attribute. It wins over CSI's `volume_mount_group`.
    pub fs_group: Option<u32>,
    /// The user that owns the files with the key: the `owner` attribute.
    pub owner: Option<u32>,
    /// How long before expiry to renew; `None` means a third of the lifetime.
    pub renew_before: Option<Duration>,
    /// Where the trust bundle comes from, all together; empty: what the signer names.
    pub trust_sources: Vec<TrustSource>,
    /// `federated-bundles`: the trust domains besides its own, and where their trust bundles come from; none: not asked for.
    pub federated: Option<BTreeMap<TrustDomain, Vec<TrustSource>>>,
    /// The class that it is of, with the attributes of pod and class together.
    pub class: Option<Arc<VolumeClass>>,
    /// What is doubtful in the attributes and is served all the same: under a peer's prefix, and in volumes that an earlier process
    /// has published.
    pub doubts: Doubts,
}

/// A signer, with what only this signer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerSpec {
    /// A cert-manager `CertificateRequest`, whatever issuer it names.
    CertManager {
        /// `issuer-name`, `issuer-kind`, `issuer-group`; none: the operator's issuer, as it is when a certificate is requested.
        issuer: Option<IssuerRef>,
        /// `key-usages` word for word, in the order given. Approvers compare them.
        usage_words: Vec<String>,
        /// For the `CertificateRequest`: other `group/key` attributes (prefix `csi.cert-manager.io/`), or those of
        /// `--extra-certificate-request-annotations` (prefix `spiffe.csi.cert-manager.io/`).
        annotations: BTreeMap<String, String>,
    },
    /// AWS Private CA, called directly.
    AcmPca(PcaRequest),
    /// The CA inside this process, for the demo and for tests.
    Local,
}

impl SignerSpec {
    /// Whether the operator's issuer is to sign.
    pub(crate) fn is_operators_issuer(&self) -> bool {
        matches!(self, Self::CertManager { issuer: None, .. })
    }

    /// The cert-manager issuer, as KIND.GROUP/NAME.
    pub(crate) fn issuer_text(&self) -> Option<String> {
        match self {
            Self::CertManager { issuer: Some(IssuerRef { name, kind, group }), .. } => {
                Some(format!("{kind}.{group}/{name}"))
            }
            Self::CertManager { issuer: None, .. } | Self::AcmPca(_) | Self::Local => None,
        }
    }

    /// What signs, for comparisons: an issuer of each namespace by itself.
    pub(crate) fn authority(&self, namespace: &str) -> String {
        match self {
            Self::CertManager { issuer: Some(IssuerRef { name, kind, group }), .. }
                if kind.starts_with("Cluster") =>
            {
                format!("{kind}.{group}/{name}")
            }
            Self::CertManager { issuer: Some(IssuerRef { name, kind, group }), .. } => {
                format!("{kind}.{group}/{namespace}/{name}")
            }
            Self::CertManager { issuer: None, .. } => "the operator's issuer".to_owned(),
            Self::AcmPca(request) => request.certificate_authority_arn.as_str().to_owned(),
            Self::Local => SignerKind::Local.as_str().to_owned(),
        }
    }

    /// Which signer it is.
    pub(crate) fn kind(&self) -> SignerKind {
        match self {
            Self::CertManager { .. } => SignerKind::CertManager,
            Self::AcmPca(_) => SignerKind::AcmPca,
            Self::Local => SignerKind::Local,
        }
    }

    /// The request to AWS Private CA, if that is the signer.
    pub(crate) fn acm_pca(&self) -> Option<&PcaRequest> {
        match self {
            Self::AcmPca(request) => Some(request),
            Self::CertManager { .. } | Self::Local => None,
        }
    }
}

impl CertificateSpec {
    /// The same with this issuer.
    pub(crate) fn with_issuer(&self, named: IssuerRef) -> Self {
        let mut spec = self.clone();
        if let SignerSpec::CertManager { issuer, .. } = &mut spec.signer {
            *issuer = Some(named);
        }
        spec
    }

    /// The same with the pod's address among its addresses.
    pub(crate) fn with_pod_ip(&self, address: IpAddr) -> Self {
        let address = address.to_canonical();
        let mut spec = Self { wants_pod_ip: false, ..self.clone() };
        if !spec.sans.ip_addresses.contains(&address) {
            spec.sans.ip_addresses.push(address);
        }
        spec
    }
}

/// cert-manager's `issuerRef`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRef {
    /// `issuer-name`
    pub name: String,
    /// `issuer-kind`
    pub kind: String,
    /// `issuer-group`
    pub group: String,
}

/// The subject's distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Built from the single attributes.
    Fields(SubjectFields),
    /// `literal-subject`
    Literal(DistinguishedName),
}

/// The subject's fields. Each value is a relative distinguished name of its own; under the prefix `csi.cert-manager.io/` the values
/// of a list are one together, as in Go's `pkix.Name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectFields {
    /// `common-name`
    pub common_name: Option<String>,
    /// `organizations`
    pub organizations: Vec<String>,
    /// `organizationalunits`
    pub organizational_units: Vec<String>,
    /// `countries`
    pub countries: Vec<String>,
    /// `provinces`
    pub provinces: Vec<String>,
    /// `localities`
    pub localities: Vec<String>,
    /// `streetaddresses`
    pub street_addresses: Vec<String>,
    /// `postalcodes`
    pub postal_codes: Vec<String>,
    /// `serialnumber`: the subject's, not the certificate's.
    pub serial_number: Option<String>,
}

/// Subject alternative names (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectAltNames {
    /// `dns-names`
    pub dns_names: Vec<String>,
    /// `uri-sans`
    pub uris: Vec<String>,
    /// `ip-sans`
    pub ip_addresses: Vec<IpAddr>,
    /// `email-sans`
    pub emails: Vec<String>,
}

impl SubjectAltNames {
    /// Whether the list of names is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.dns_names.is_empty()
            && self.uris.is_empty()
            && self.ip_addresses.is_empty()
            && self.emails.is_empty()
    }
}

/// The private key's algorithm, file encoding and reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// `key-algorithm` and `key-size`
    pub algorithm: KeyAlgorithm,
    /// `key-encoding`
    pub encoding: KeyEncoding,
    /// `reuse-private-key`: keep the key across renewals.
    pub reuse: bool,
}

/// Key algorithms that certlet supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// RSA with a modulus of so many bits, within [`Self::RSA_BITS`].
    Rsa(u16),
    /// ECDSA on NIST P-256.
    EcdsaP256,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// ECDSA on NIST P-521.
    EcdsaP521,
    /// Ed25519 (RFC 8410).
    Ed25519,
}

impl KeyAlgorithm {
    /// Every algorithm of our own prefix; the first one of a family is its default.
    pub(crate) const ALL: [Self; 7] = [
        Self::Rsa(2048),
        Self::Rsa(3072),
        Self::Rsa(4096),
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Ed25519,
    ];

    /// The sizes of RSA keys that are read everywhere, and made under the prefix `csi.cert-manager.io/`.
    pub(crate) const RSA_BITS: RangeInclusive<u16> = 2048..=8192;

    /// The accepted values of `key-size`: [`Self::ALL`] and [`Self::RSA_BITS`] in words.
    pub(crate) const SIZES: &str = "`2048`, `3072` or `4096` for RSA, with the prefix `csi.cert-manager.io/` any number from `2048` \
         to `8192`; `256`, `384` or `521` for ECDSA; nothing for Ed25519";

    /// The keys that are read, in words: a local CA's, and those of volumes.
    pub(crate) const READ: &str = "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and P-521, and Ed25519";

    /// `key-algorithm` and `key-size`; Ed25519 has only one size, so it is not named.
    pub(crate) fn family_and_bits(self) -> (&'static str, Option<u32>) {
        match self {
            Self::Rsa(bits) => ("RSA", Some(u32::from(bits))),
            Self::EcdsaP256 => ("ECDSA", Some(256)),
            Self::EcdsaP384 => ("ECDSA", Some(384)),
            Self::EcdsaP521 => ("ECDSA", Some(521)),
            Self::Ed25519 => ("Ed25519", None),
        }
    }

    /// The algorithm of a family with this size.
    pub(crate) fn sized(family: &str, bits: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.family_and_bits() == (family, Some(bits)))
    }

    /// Whether generating a key takes milliseconds to seconds. Such a key is generated on the blocking pool, and kept for
    /// the next attempt. For the others the hop to another thread costs more than the key.
    pub(crate) fn is_slow_to_make(self) -> bool {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 | Self::Ed25519 => false,
            Self::EcdsaP521 | Self::Rsa(_) => true,
        }
    }
}

named_enum! {
    /// The encoding of the private key file. Its name is the value of `key-encoding`.
    pub enum KeyEncoding {
        /// The algorithm's own: `RSA PRIVATE KEY` (RFC 8017) for RSA.
        Pkcs1 = "PKCS1",
        /// `PRIVATE KEY` (RFC 5958).
        Pkcs8 = "PKCS8",
    }
}

/// The request to AWS Private CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcaRequest {
    /// `certificate-authority-arn`
    pub certificate_authority_arn: Arn,
    /// `signing-algorithm`
    pub signing_algorithm: Option<String>,
    /// `template-arn`
    pub template_arn: Option<String>,
    /// `role-arn` or `use-pod-identity`
    pub caller: PcaCaller,
}

/// Whose credentials AWS Private CA is called with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PcaCaller {
    /// The driver's own.
    Driver,
    /// `role-arn`: those of this IAM role, obtained with the pod's token.
    Role(String),
    /// `use-pod-identity`: those that EKS Pod Identity gives the pod.
    PodIdentity,
}

impl PcaCaller {
    /// The IAM role that the pod names.
    pub(crate) fn role(&self) -> Option<&str> {
        match self {
            Self::Role(arn) => Some(arn),
            Self::Driver | Self::PodIdentity => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_for_accepted_keys_name_every_size() {
        for bits in KeyAlgorithm::ALL.into_iter().filter_map(|algorithm| algorithm.family_and_bits().1) {
            assert!(KeyAlgorithm::SIZES.contains(&format!("`{bits}`")), "{bits}");
        }
        let (least, most) = KeyAlgorithm::RSA_BITS.into_inner();
        assert!(KeyAlgorithm::SIZES.contains(&format!("from `{least}` to `{most}`")));
        assert!(KeyAlgorithm::READ.contains(&format!("RSA of {least} to {most} bits")));
    }
}
