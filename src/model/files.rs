//! The files that a volume asks for.

use super::named::named_enum;
use secrecy::SecretString;

/// The files in the volume, whose names are all different.
#[derive(Clone, Debug)]
pub struct Files {
    /// `layout`: the files with the key, the chain and the trust anchors.
    pub layout: Layout,
    /// `combined-file`: key, then chain, in one PEM file.
    pub combined: Option<String>,
    /// `pkcs12-*`
    pub pkcs12: Option<Pkcs12>,
    /// `truststore-file`
    pub truststore: Option<Truststore>,
    /// `crl-file`: the CRLs of the volume's CAs.
    pub crl: Option<String>,
    /// `socket-file`: the socket of the SPIFFE Workload API and of Envoy's SDS.
    pub socket: Option<String>,
    /// `files: "false"`: the volume is handed over by its socket only, and the files above are not in it.
    pub is_socket_only: bool,
    /// Where the password of the keystores comes from. Without one, that of the truststore is Java's default.
    pub password: Option<KeystorePassword>,
}

/// Where the password of a volume's keystores comes from.
#[derive(Clone, Debug)]
pub enum KeystorePassword {
    /// `pkcs12-password`
    Given(SecretString),
    /// The Secret of the volume's `nodePublishSecretRef`, under this key: `pkcs12-password-key`
    Secret(String),
    /// Random, made once for the volume, and in this file of it: `pkcs12-password-file`
    File(String),
}

/// A PKCS#12 keystore of the trust anchors alone.
#[derive(Clone, Debug)]
pub struct Truststore {
    /// `truststore-file`
    pub file: String,
    /// `pkcs12-profile`
    pub profile: Pkcs12Profile,
}

/// The PKCS#12 keystore.
#[derive(Clone, Debug)]
pub struct Pkcs12 {
    /// `pkcs12-filename`
    pub file: String,
    /// `pkcs12-profile`
    pub profile: Pkcs12Profile,
    /// `pkcs12-alias`, the friendly name of the key; none under the prefix `csi.cert-manager.io/`, where Java shows `1`.
    pub alias: Option<String>,
    /// Whether the trust anchors are entries of the keystore.
    pub has_anchors: bool,
}

impl Pkcs12 {
    /// With the defaults of the prefix `csi.certlet.io/`.
    #[cfg(test)]
    pub(crate) fn modern(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            profile: Pkcs12Profile::Modern,
            alias: Some("certificate".to_owned()),
            has_anchors: true,
        }
    }
}

named_enum! {
    /// The algorithms of a keystore. Its name is the value of `pkcs12-profile`.
    pub enum Pkcs12Profile {
        /// PBES2 with AES-256-CBC, and a SHA-256 MAC.
        Modern = "modern",
        /// RC2 with 40 bits, triple DES, and a SHA-1 MAC, as Java 8 before 8u301 needs them.
        Legacy = "legacy",
    }
}

named_enum! {
    /// A layout of key, chain and trust anchors in files. Its name is the value of `layout`.
    pub enum LayoutKind {
        /// Three PEM files with names of the author's choice.
        Default = "default",
        /// Three PEM files, where Istio's agent looks for them.
        Istio = "istio",
        /// SPIFFE Filesystem Delivery (the draft in the pull request 376 of spiffe/spiffe).
        Spiffe = "spiffe",
        /// A file for each SDS secret, for Envoy's `path_config_source`.
        Envoy = "envoy",
    }
}

/// The files with the key, the chain and the trust anchors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// [`LayoutKind::Default`]
    Default(PemFiles),
    /// [`LayoutKind::Istio`]
    Istio,
    /// [`LayoutKind::Spiffe`]
    Spiffe,
    /// [`LayoutKind::Envoy`], with the names of the secrets in the files.
    Envoy(SecretNames),
}

/// The names of the files with the key, the chain and the trust anchors: plain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemFiles {
    /// `certificate-file`: leaf, then intermediates.
    pub certificate: String,
    /// `privatekey-file`
    pub private_key: String,
    /// `ca-file`; none: there is no such file.
    pub ca: Option<String>,
}

/// The names of SDS secrets besides SPIFFE IDs and trust domains. The defaults are those of SPIRE's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretNames {
    /// Certificate and key: `--sds-default-svid-name`
    pub certificate: String,
    /// The trust bundle of the workload's own trust domain: `--sds-default-bundle-name`
    pub trust_bundle: String,
    /// The trust bundles of all trust domains: `--sds-default-all-bundles-name`
    pub all_bundles: String,
}

impl Default for SecretNames {
    fn default() -> Self {
        Self { certificate: "default".into(), trust_bundle: "ROOTCA".into(), all_bundles: "ALL".into() }
    }
}

impl Layout {
    /// The file of the layout `spiffe` that holds key and chain.
    pub(crate) const CREDENTIAL_BUNDLE: &str = "credential-bundle.private-key.x509.pem";
    /// The name of a trust domain and this are the name of its trust bundle: in the layout `spiffe` of the volume's own, in every
    /// layout of federated ones.
    pub(crate) const TRUST_BUNDLE_SUFFIX: &str = ".spiffe-trust-bundle.x509.pem";
    /// The file of the layout `spiffe` that lists the credential bundles.
    pub(crate) const HINTS: &str = "hints.json";
    /// The file of the layout `envoy` that holds key and chain.
    pub(crate) const ENVOY_CERTIFICATE: &str = "default.yaml";
    /// The file of the layout `envoy` that holds the trust bundles of all trust domains, with `federated-bundles`.
    pub(crate) const ENVOY_ALL_TRUST_BUNDLES: &str = "ALL.yaml";
    /// The file of the layout `envoy` that holds the trust anchors.
    pub(crate) const ENVOY_TRUST_BUNDLE: &str = "ROOTCA.yaml";

    const ISTIO_CERTIFICATE: &str = "cert-chain.pem";
    const ISTIO_KEY: &str = "key.pem";
    const ISTIO_CA: &str = "root-cert.pem";

    /// Which layout it is.
    pub(crate) fn kind(&self) -> LayoutKind {
        match self {
            Self::Default(_) => LayoutKind::Default,
            Self::Istio => LayoutKind::Istio,
            Self::Spiffe => LayoutKind::Spiffe,
            Self::Envoy(_) => LayoutKind::Envoy,
        }
    }

    /// The file with the leaf.
    pub(crate) fn certificate_file(&self) -> &str {
        match self {
            Self::Default(files) => &files.certificate,
            Self::Istio => Self::ISTIO_CERTIFICATE,
            Self::Spiffe => Self::CREDENTIAL_BUNDLE,
            Self::Envoy(_) => Self::ENVOY_CERTIFICATE,
        }
    }

    /// The file with the private key. It may be that of the leaf.
    pub(crate) fn private_key_file(&self) -> &str {
        match self {
            Self::Default(files) => &files.private_key,
            Self::Istio => Self::ISTIO_KEY,
            Self::Spiffe => Self::CREDENTIAL_BUNDLE,
            Self::Envoy(_) => Self::ENVOY_CERTIFICATE,
        }
    }

    /// The file with the trust anchors; none if there is none, or if the trust domain is part of its name.
    pub(crate) fn ca_file(&self) -> Option<&str> {
        match self {
            Self::Default(files) => files.ca.as_deref(),
            Self::Istio => Some(Self::ISTIO_CA),
            Self::Spiffe => None,
            Self::Envoy(_) => Some(Self::ENVOY_TRUST_BUNDLE),
        }
    }
}
