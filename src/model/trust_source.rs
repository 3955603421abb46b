//! Where a trust bundle comes from.

use super::shown::shown;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What [`TrustSource`] can be in a flag.
const ACCEPTED: &str = "the absolute path of a file, file:PATH, or configmap:NAMESPACE/NAME[/KEY]";
/// The prefix of a ConfigMap.
const CONFIG_MAP: &str = "configmap:";
/// The prefix of a file.
const FILE: &str = "file:";
/// The longest name of an object in Kubernetes, and the longest key of a ConfigMap.
const MAX_NAME: usize = 253;

/// An object that holds PEM certificates, and may change at any time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TrustSource {
    /// A key of a ConfigMap, such as trust-manager makes them.
    ConfigMap {
        /// `metadata.namespace`
        namespace: String,
        /// `metadata.name`
        name: String,
        /// None: `ca.crt`, or else the only key.
        key: Option<String>,
    },
    /// A file on the node or in the driver's container.
    File(PathBuf),
}

impl FromStr for TrustSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{} is no trust source; accepted: {ACCEPTED}", shown(text));
        let path = text.strip_prefix(FILE).or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = path {
            return path.starts_with('/').then(|| Self::File(path.into())).ok_or_else(refused);
        }
        let mut parts = text.strip_prefix(CONFIG_MAP).ok_or_else(refused)?.split('/');
        let (namespace, name, key, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
        let object = namespace.zip(name).filter(|(namespace, name)| is_name(namespace) && is_name(name));
        match object {
            Some((namespace, name)) if rest.is_none() && key.is_none_or(is_key) => Ok(Self::ConfigMap {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                key: key.map(str::to_owned),
            }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for TrustSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap { namespace, name, key } => {
                write!(f, "{CONFIG_MAP}{namespace}/{name}")?;
                key.as_ref().map_or(Ok(()), |key| write!(f, "/{key}"))
            }
            Self::File(path) => write!(f, "{FILE}{}", path.display()),
        }
    }
}

/// Whether an object in Kubernetes can have this name (RFC 1123: a DNS subdomain).
fn is_name(text: &str) -> bool {
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
    fn a_source_is_a_file_or_a_key_of_a_config_map() {
        for (text, canonical) in [
            ("/etc/ca/ca.crt", "file:/etc/ca/ca.crt"),
            ("file:/etc/ca/ca.crt", "file:/etc/ca/ca.crt"),
            ("configmap:cert-manager/roots", "configmap:cert-manager/roots"),
            ("configmap:a/b.c/trust-bundle.pem", "configmap:a/b.c/trust-bundle.pem"),
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
        ] {
            let error = text.parse::<TrustSource>().unwrap_err();
            assert!(error.contains("configmap:NAMESPACE/NAME[/KEY]"), "{text}: {error}");
        }
    }
}
