//! Where a trust bundle comes from.

use super::shown::shown;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What [`TrustSource`] can be in a flag.
const ACCEPTED: &str = "signer, the absolute path of a file, file:PATH, configmap:NAMESPACE/NAME[/KEY], clustertrustbundle:NAME, \
     clustertrustbundle:SIGNER[?LABEL=VALUE&...], or spiffe-bundle: with a file or a ConfigMap";
/// The signer's answer.
const SIGNER: &str = "signer";
/// The prefix of a ConfigMap.
const CONFIG_MAP: &str = "configmap:";
/// The prefix of ClusterTrustBundles.
const CLUSTER_TRUST_BUNDLE: &str = "clustertrustbundle:";
/// The prefix of a file.
const FILE: &str = "file:";
/// The prefix of a source whose text is a SPIFFE bundle document.
const SPIFFE_BUNDLE: &str = "spiffe-bundle:";
/// The longest name of an object in Kubernetes, and the longest key of a ConfigMap.
const MAX_NAME: usize = 253;
/// The longest `spec.signerName`: a DNS subdomain, a slash and a path. The API server accepts as much.
const MAX_SIGNER_NAME: usize = 571;
/// The longest value of a label.
const MAX_LABEL_VALUE: usize = 63;
/// The most labels of a selector.
const MAX_LABELS: usize = 16;

/// What trust anchors are read from. All but the signer can change at any time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrustSource {
    /// The anchors that the signer names with a certificate.
    Signer,
    /// A key of a ConfigMap, such as trust-manager makes them.
    ConfigMap {
        /// `metadata.namespace`
        namespace: String,
        /// `metadata.name`
        name: String,
        /// None: `ca.crt`, or else the only key.
        key: Option<String>,
    },
    /// One ClusterTrustBundle.
    ClusterTrustBundle {
        /// `metadata.name`
        name: String,
    },
    /// All ClusterTrustBundles of a signer, joined.
    ClusterTrustBundles {
        /// `spec.signerName`
        signer_name: String,
        /// Labels that they must have; empty: all of the signer's.
        labels: BTreeMap<String, String>,
    },
    /// A file on the node or in the driver's container.
    File(PathBuf),
    /// A file or a ConfigMap with a SPIFFE bundle document in place of PEM.
    SpiffeBundle(Box<TrustSource>),
    /// What a running volume names and the operator no longer lists. It cannot be read, so the volume keeps its last anchors.
    NotListed(String),
}

impl FromStr for TrustSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{} is no trust source; accepted: {ACCEPTED}", shown(text));
        if text == SIGNER {
            return Ok(Self::Signer);
        }
        if let Some(plain) = text.strip_prefix(SPIFFE_BUNDLE) {
            let is_plain =
                plain.starts_with(['/']) || plain.starts_with(FILE) || plain.starts_with(CONFIG_MAP);
            let plain: Option<Self> = is_plain.then(|| plain.parse().ok()).flatten();
            return plain.map(|plain| Self::SpiffeBundle(Box::new(plain))).ok_or_else(refused);
        }
        let path = text.strip_prefix(FILE).or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = path {
            return path.starts_with('/').then(|| Self::File(path.into())).ok_or_else(refused);
        }
        if let Some(source) = Self::cluster_trust_bundle(text) {
            return source.map_err(|_| refused());
        }
        let object = text.strip_prefix(CONFIG_MAP).and_then(|object| object.split_once('/'));
        let (namespace, object) = object.filter(|(namespace, _)| is_name(namespace)).ok_or_else(refused)?;
        Self::config_map(namespace, object).ok_or_else(refused)
    }
}

impl TrustSource {
    /// The ConfigMap of a pod's own namespace that `configmap:NAME[/KEY]` names. `None` for another kind of source.
    pub(crate) fn own_config_map(text: &str, namespace: &str) -> Option<Result<Self, &'static str>> {
        let source = Self::config_map(namespace, text.strip_prefix(CONFIG_MAP)?);
        Some(source.ok_or("names no ConfigMap of the pod's namespace"))
    }

    /// What `clustertrustbundle:` and a name or a signer's name stand for. `None` for another kind of source.
    pub(crate) fn cluster_trust_bundle(text: &str) -> Option<Result<Self, &'static str>> {
        let object = text.strip_prefix(CLUSTER_TRUST_BUNDLE)?;
        let (object, selector) =
            object.split_once('?').map_or((object, None), |(object, it)| (object, Some(it)));
        let source = if object.contains('/') {
            let labels = selector.map_or_else(|| Some(BTreeMap::new()), labels);
            let signer_name = is_signer_name(object).then(|| object.to_owned());
            signer_name
                .zip(labels)
                .map(|(signer_name, labels)| Self::ClusterTrustBundles { signer_name, labels })
        } else {
            let is_named = selector.is_none() && is_object_or_signers_name(object);
            is_named.then(|| Self::ClusterTrustBundle { name: object.to_owned() })
        };
        Some(source.ok_or("names no ClusterTrustBundle"))
    }

    /// `NAME[/KEY]` in a namespace.
    fn config_map(namespace: &str, object: &str) -> Option<Self> {
        let (name, key) = object.split_once('/').map_or((object, None), |(name, key)| (name, Some(key)));
        (is_name(name) && key.is_none_or(is_key)).then(|| Self::ConfigMap {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: key.map(str::to_owned),
        })
    }
}

impl fmt::Display for TrustSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signer => f.write_str(SIGNER),
            Self::ConfigMap { namespace, name, key } => {
                write!(f, "{CONFIG_MAP}{namespace}/{name}")?;
                key.as_ref().map_or(Ok(()), |key| write!(f, "/{key}"))
            }
            Self::ClusterTrustBundle { name } => write!(f, "{CLUSTER_TRUST_BUNDLE}{name}"),
            Self::ClusterTrustBundles { signer_name, labels } => {
                write!(f, "{CLUSTER_TRUST_BUNDLE}{signer_name}")?;
                for (index, (label, value)) in labels.iter().enumerate() {
                    write!(f, "{}{label}={value}", if index == 0 { '?' } else { '&' })?;
                }
                Ok(())
            }
            Self::File(path) => write!(f, "{FILE}{}", path.display()),
            Self::SpiffeBundle(plain) => write!(f, "{SPIFFE_BUNDLE}{plain}"),
            Self::NotListed(text) => f.write_str(text),
        }
    }
}

/// The labels of `LABEL=VALUE&...`; none if one of them cannot be a label, or is there twice.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for pair in text.split('&') {
        let (label, value) = pair.split_once('=')?;
        let (prefix, name) =
            label.rsplit_once('/').map_or((None, label), |(prefix, name)| (Some(prefix), name));
        let is_label =
            prefix.is_none_or(is_name) && is_label_text(name) && (value.is_empty() || is_label_text(value));
        if !is_label || labels.insert(label.to_owned(), value.to_owned()).is_some() {
            return None;
        }
    }
    (labels.len() <= MAX_LABELS).then_some(labels)
}

/// Whether a label can have this name without its prefix, or this value.
fn is_label_text(text: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    is_key(text) && text.len() <= MAX_LABEL_VALUE && is_edge(bytes.first()) && is_edge(bytes.last())
}

/// Whether `spec.signerName` can be this: a DNS subdomain, a slash, and a path of such names.
fn is_signer_name(text: &str) -> bool {
    text.len() <= MAX_SIGNER_NAME
        && text.split_once('/').is_some_and(|(domain, path)| is_name(domain) && path.split('.').all(is_name))
}

/// Whether a ClusterTrustBundle can have this name: that of a signer's has colons.
fn is_object_or_signers_name(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split(':').all(is_name)
}

/// Whether an object in Kubernetes can have this name (RFC 1123: a DNS subdomain).
pub(crate) fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    text.len() <= MAX_NAME && text.split('.').all(is_label)
}

/// Whether a ConfigMap can have this key.
fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_the_signer_a_file_or_an_object() {
        for (text, canonical) in [
            ("signer", "signer"),
            ("clustertrustbundle:roots", "clustertrustbundle:roots"),
            ("clustertrustbundle:example.org:mesh:v1", "clustertrustbundle:example.org:mesh:v1"),
            ("clustertrustbundle:example.org/mesh", "clustertrustbundle:example.org/mesh"),
            (
                "clustertrustbundle:example.org/mesh?tier=b&example.org/env=",
                "clustertrustbundle:example.org/mesh?example.org/env=&tier=b",
            ),
            ("/etc/ca/ca.crt", "file:/etc/ca/ca.crt"),
            ("file:/etc/ca/ca.crt", "file:/etc/ca/ca.crt"),
            ("configmap:cert-manager/roots", "configmap:cert-manager/roots"),
            ("configmap:a/b.c/trust-bundle.pem", "configmap:a/b.c/trust-bundle.pem"),
            ("spiffe-bundle:/etc/ca/partner.json", "spiffe-bundle:file:/etc/ca/partner.json"),
            ("spiffe-bundle:configmap:a/b/partner.json", "spiffe-bundle:configmap:a/b/partner.json"),
        ] {
            let source: TrustSource = text.parse().unwrap();
            assert_eq!(source.to_string(), canonical);
            assert_eq!(canonical.parse::<TrustSource>().unwrap(), source);
        }
    }

    #[test]
    fn what_is_no_source_is_refused_with_what_is_accepted() {
        for text in [
            "",
            "ca.crt",
            "file:ca.crt",
            "configmap:roots",
            "configmap:/roots",
            "configmap:a/",
            "configmap:a/b/",
            "configmap:a/b/c/d",
            "configmap:A/b",
            "configmap:a/b/c d",
            "secret:a/b",
            "signer:",
            "spiffe-bundle:",
            "spiffe-bundle:ca.json",
            "spiffe-bundle:signer",
            "spiffe-bundle:clustertrustbundle:a",
            "spiffe-bundle:spiffe-bundle:/ca.json",
            "clustertrustbundle:",
            "clustertrustbundle:A",
            "clustertrustbundle:roots?a=b",
            "clustertrustbundle:example.org/",
            "clustertrustbundle:example.org/a/b",
            "clustertrustbundle:example.org/a?",
            "clustertrustbundle:example.org/a?b",
            "clustertrustbundle:example.org/a?b=c&b=d",
            "clustertrustbundle:example.org/a?-b=c",
        ] {
            let error = text.parse::<TrustSource>().unwrap_err();
            assert!(error.contains("configmap:NAMESPACE/NAME[/KEY]"), "{text}: {error}");
        }
    }

    #[test]
    fn a_pod_names_a_config_map_of_its_own_namespace() {
        let named = |text| {
            TrustSource::own_config_map(text, "shop").map(|named| named.map(|source| source.to_string()))
        };
        assert_eq!(named("configmap:roots"), Some(Ok("configmap:shop/roots".to_owned())));
        assert_eq!(named("configmap:roots/ca.pem"), Some(Ok("configmap:shop/roots/ca.pem".to_owned())));
        for text in ["configmap:", "configmap:other/roots/ca.pem", "configmap:roots/"] {
            assert!(named(text).unwrap().is_err(), "{text}");
        }
        assert_eq!(named("file:/a"), None);
    }
}
