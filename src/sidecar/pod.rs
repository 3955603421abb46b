//! Which pod a sidecar is in: by its flags, and by its own service account token.

use crate::attributes::{node_of, workload_of};
use crate::model::{WorkloadIdentity, shown};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// Where Kubernetes mounts the token of a pod's service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Limit on a token. Those of Kubernetes have about 1.5 KiB.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// What the flags say of the pod.
#[derive(Clone, Debug, Default)]
pub struct PodNames {
    /// `--pod-namespace`
    pub namespace: Option<String>,
    /// `--pod-name`
    pub name: Option<String>,
    /// `--pod-uid`
    pub uid: Option<String>,
    /// `--service-account`
    pub service_account: Option<String>,
    /// `--node-name`
    pub node: Option<String>,
}

/// The pod, and its node where that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnPod {
    /// The pod.
    pub(crate) identity: WorkloadIdentity,
    /// The node.
    pub(crate) node: Option<String>,
}

/// Why it is not known which pod this is.
#[derive(Debug, Error)]
pub enum PodError {
    /// A name is missing.
    #[error(
        "{flag}: is missing, and {} is no token of a pod; accepted: the flag, by the downward API, or a service account token that is \
         mounted there", .token_file.display()
    )]
    Missing {
        /// The flag.
        flag: &'static str,
        /// Where the token would be.
        token_file: PathBuf,
    },
    /// Flag and token differ.
    #[error("{flag}: {}, but the service account token of this pod says {}; accepted: the name that the token has", shown(.given), shown(.found))]
    Contradiction {
        /// The flag.
        flag: &'static str,
        /// Its value.
        given: String,
        /// What the token says.
        found: String,
    },
    /// The token cannot be read.
    #[error("the service account token {}: {source}", .path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Where this pod's token is.
pub(crate) fn token_file() -> PathBuf {
    PathBuf::from(TOKEN_FILE)
}

/// The pod, by the flags and by the token in this file, if there is one. Its signature is not verified here: the API server
/// authenticates it with each request.
pub(crate) fn own_pod(given: &PodNames, token_file: &Path) -> Result<OwnPod, PodError> {
    let token = read(token_file).map_err(|source| PodError::Token { path: token_file.to_owned(), source })?;
    let found = token.as_ref().and_then(|token| workload_of(token));
    let node = token.as_ref().and_then(|token| node_of(token));
    let optional = |flag, given: &Option<String>, found: Option<&String>| match (given, found) {
        (Some(given), Some(found)) if given != found => {
            Err(PodError::Contradiction { flag, given: given.clone(), found: found.clone() })
        }
        (given, found) => Ok(given.as_ref().or(found).filter(|name| !name.is_empty()).cloned()),
    };
    let one = |flag, given: &Option<String>, found: Option<&String>| {
        let missing = || PodError::Missing { flag, token_file: token_file.to_owned() };
        optional(flag, given, found)?.ok_or_else(missing)
    };
    let found = found.as_ref();
    let identity = WorkloadIdentity {
        namespace: one("--pod-namespace", &given.namespace, found.map(|found| &found.namespace))?,
        name: one("--pod-name", &given.name, found.map(|found| &found.name))?,
        uid: one("--pod-uid", &given.uid, found.map(|found| &found.uid))?,
        service_account: one(
            "--service-account",
            &given.service_account,
            found.map(|found| &found.service_account),
        )?,
    };
    Ok(OwnPod { identity, node: optional("--node-name", &given.node, node.as_ref())? })
}

/// The token; none if there is no file.
fn read(path: &Path) -> std::io::Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        file => file?,
    };
    let mut token = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut token)?;
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64ct::{Base64UrlUnpadded, Encoding};

    fn token() -> tempfile::NamedTempFile {
        let payload = r#"{"kubernetes.io":{"namespace":"shop","node":{"name":"node-1","uid":"n"},"pod":{"name":"cart-0","uid":"b8f1"},"serviceaccount":{"name":"cart"}}}"#;
        let file = tempfile::NamedTempFile::new().unwrap();
        let token = format!("h.{}.s", Base64UrlUnpadded::encode_string(payload.as_bytes()));
        std::fs::write(file.path(), token).unwrap();
        file
    }

    #[test]
    fn the_token_names_what_the_flags_leave_out() {
        let given = PodNames { name: Some("cart-0".into()), ..PodNames::default() };
        let OwnPod { identity: pod, node } = own_pod(&given, token().path()).unwrap();
        let expected = ["shop", "cart-0", "b8f1", "cart"].map(str::to_owned);
        assert_eq!([pod.namespace, pod.name, pod.uid, pod.service_account], expected);
        assert_eq!(node.as_deref(), Some("node-1"));
    }

    #[test]
    fn a_flag_that_the_token_contradicts_is_refused() {
        let given = PodNames { service_account: Some("admin".into()), ..PodNames::default() };
        let error = own_pod(&given, token().path()).unwrap_err().to_string();
        assert_eq!(
            error,
            "--service-account: \"admin\", but the service account token of this pod says \"cart\"; accepted: the name that the \
             token has"
        );
    }

    #[test]
    fn without_a_token_the_flags_name_all() {
        let nowhere = Path::new("/nonexistent/token");
        let name = |text: &str| Some(text.to_owned());
        let mut given = PodNames {
            namespace: name("n"),
            name: name("p"),
            uid: name("u"),
            service_account: name("s"),
            node: None,
        };
        let pod = own_pod(&given, nowhere).unwrap();
        assert_eq!((pod.identity.account().as_str(), pod.node), ("n/s", None));
        given.node = name("node-2");
        assert_eq!(own_pod(&given, nowhere).unwrap().node.as_deref(), Some("node-2"));
        let error = own_pod(&given, token().path()).unwrap_err().to_string();
        assert!(error.starts_with("--pod-namespace: \"n\", but the service account token"), "{error}");
        let other = PodNames { node: name("node-2"), ..PodNames::default() };
        let error = own_pod(&other, token().path()).unwrap_err().to_string();
        assert!(error.starts_with("--node-name: \"node-2\", but the service account token"), "{error}");
        given.uid = None;
        let error = own_pod(&given, nowhere).unwrap_err().to_string();
        assert!(error.starts_with("--pod-uid: is missing, and /nonexistent/token is no token"), "{error}");
    }
}
