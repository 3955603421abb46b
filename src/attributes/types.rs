//! The typed result: what one volume asks for, with every default filled in and every variable expanded.

use super::distinguished_name::DistinguishedName;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Which prefix the volume used, and so whose defaults it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `csi.cert-manager.io/`: meaning and defaults of cert-manager's csi-driver.
    CertManager,
    /// `csi.certlet.io/`: ECDSA P-256, PKCS#8, 24 hours.
    Certlet,
}

/// Who turns the certificate signing request into a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignerKind {
    /// A cert-manager `CertificateRequest`, whatever issuer it names.
    CertManager,
    /// AWS Private CA, called directly.
    AcmPca,
    /// The CA inside this process, for the demo and for tests.
    Local,
}

impl SignerKind {
    /// Every signer, in the order the documentation lists them.
    pub const ALL: [Self; 3] = [Self::CertManager, Self::AcmPca, Self::Local];

    /// The value of the `signer` attribute and of the `signer` metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CertManager => "cert-manager",
            Self::AcmPca => "acm-pca",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for SignerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything one volume asks for.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Which dialect the volume was written in.
    pub dialect: Dialect,
    /// Who signs.
    pub signer: SignerKind,
    /// The cert-manager issuer; always there when `signer` is [`SignerKind::CertManager`].
    pub issuer: Option<IssuerRef>,
    /// Subject of the certificate; may be empty.
    pub subject: Subject,
    /// Subject alternative names.
    pub sans: SubjectAltNames,
    /// Requested lifetime; positive.
    pub duration: Duration,
    /// Whether a CA certificate is asked for (RFC 5280 section 4.2.1.9).
    pub is_ca: bool,
    /// Key usages and extended key usages, in the order given, without duplicates.
    pub usages: Vec<Usage>,
    /// The private key.
    pub key: KeySpec,
    /// The files of the delivery.
    pub files: Files,
    /// The group that may read the key: the `fs-group` attribute. It wins over CSI's `volume_mount_group`.
    pub fs_group: Option<u32>,
    /// How long before expiry to renew; `None` means a third of the lifetime.
    pub renew_before: Option<Duration>,
    /// Other `group/key` attributes, copied to the `CertificateRequest` (cert-manager dialect).
    pub annotations: BTreeMap<String, String>,
    /// What is asked of AWS Private CA; there when `signer` is [`SignerKind::AcmPca`].
    pub pca: Option<PcaRequest>,
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

/// The subject's fields; each list becomes one multi-valued relative distinguished name, as Go's `pkix.Name` does.
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
}

impl SubjectAltNames {
    /// Whether no name is asked for.
    pub fn is_empty(&self) -> bool {
        self.dns_names.is_empty() && self.uris.is_empty() && self.ip_addresses.is_empty()
    }
}

/// The private key's algorithm, file encoding and life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// `key-algorithm` and `key-size`
    pub algorithm: KeyAlgorithm,
    /// `key-encoding`
    pub encoding: KeyEncoding,
    /// `reuse-private-key`: keep the key across renewals.
    pub reuse: bool,
}

/// Key algorithms that certlet makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// RSA with a 2048 bit modulus.
    Rsa2048,
    /// RSA with a 3072 bit modulus.
    Rsa3072,
    /// RSA with a 4096 bit modulus.
    Rsa4096,
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
    /// Whether making a key takes so long, milliseconds to seconds, that it is done off the async threads and not twice
    /// without need. For the others handing the work to another thread and back costs more than it does.
    pub fn is_slow_to_make(self) -> bool {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 | Self::Ed25519 => false,
            Self::EcdsaP521 | Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => true,
        }
    }
}

/// The encoding of the private key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// The algorithm's own: `RSA PRIVATE KEY` (RFC 8017) for RSA.
    Pkcs1,
    /// `PRIVATE KEY` (RFC 5958).
    Pkcs8,
}

/// Names of the delivered files: plain names, all different.
#[derive(Clone, Debug)]
pub struct Files {
    /// `certificate-file`: leaf, then intermediates.
    pub certificate: String,
    /// `privatekey-file`
    pub private_key: String,
    /// `ca-file`
    pub ca: String,
    /// `combined-file`: key, then chain, in one PEM file.
    pub combined: Option<String>,
    /// `pkcs12-*`
    pub pkcs12: Option<Pkcs12>,
}

/// The PKCS#12 keystore.
#[derive(Clone, Debug)]
pub struct Pkcs12 {
    /// `pkcs12-filename`
    pub file: String,
    /// `pkcs12-password`
    pub password: SecretString,
}

/// What is asked of AWS Private CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcaRequest {
    /// `certificate-authority-arn`
    pub certificate_authority_arn: String,
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
    /// `role-arn`: this IAM role's, taken with the pod's token.
    Role(String),
    /// `use-pod-identity`: those that EKS Pod Identity gives the pod.
    PodIdentity,
}

impl PcaCaller {
    /// The role that the pod names.
    pub fn role(&self) -> Option<&str> {
        match self {
            Self::Role(arn) => Some(arn),
            Self::Driver | Self::PodIdentity => None,
        }
    }
}

/// A key usage (RFC 5280 section 4.2.1.3) or extended key usage (section 4.2.1.12), under cert-manager's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the usage it is named after")]
pub enum Usage {
    DigitalSignature,
    ContentCommitment,
    KeyEncipherment,
    KeyAgreement,
    DataEncipherment,
    CertSign,
    CrlSign,
    EncipherOnly,
    DecipherOnly,
    Any,
    ServerAuth,
    ClientAuth,
    CodeSigning,
    EmailProtection,
    IpsecEndSystem,
    IpsecTunnel,
    IpsecUser,
    Timestamping,
    OcspSigning,
    MicrosoftSgc,
    NetscapeSgc,
}
