//! The volume context of a publish, split into the kubelet's part and the author's part.

use super::errors::{AttributeError, AttributeErrors};
use super::passwords::take_mistyped;
use super::rows::Key;
use crate::model::{Dialect, PodTokens, RawAttributes, WorkloadIdentity, shown};
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use zeroize::{Zeroize, Zeroizing};

/// The group of the keys that the kubelet adds. It writes them last, so an author cannot set them.
const KUBELET_GROUP: &str = "csi.storage.k8s.io/";
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
pub(super) const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Limit on the attributes of one volume, as written.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// The key of the keystore's password in a Secret, if the volume names none.
const DEFAULT_SECRET_KEY: &str = "password";
/// Limit on the attributes of one volume, annotations included.
const MAX_ATTRIBUTES: usize = 200;

/// The volume context of one publish.
#[derive(Clone, Debug)]
pub struct VolumeContext {
    /// The pod.
    pub pod: WorkloadIdentity,
    /// Its service account tokens, if the `CSIDriver` object requests some.
    pub tokens: PodTokens,
    /// The author's attributes.
    pub raw: RawAttributes,
    /// Keys that may hold a password under a mistyped name. They are not among the attributes.
    pub mistyped_passwords: Vec<String>,
    /// The password of the keystore in the Secret of the volume's `nodePublishSecretRef`, under the key that the volume names.
    pub keystore_password: Option<SecretString>,
}

impl VolumeContext {
    /// Namespace and name of the pod, as far as the kubelet sends them. They are for the log, also of a context that does not
    /// parse.
    pub(crate) fn pod_of(volume_context: &HashMap<String, String>) -> [Option<String>; 2] {
        [POD_NAMESPACE, POD_NAME].map(|key| volume_context.get(key).cloned())
    }

    /// That of a sidecar, which knows its own pod and needs no token of it. Its flags name a file with the password of the keystore.
    pub(crate) fn of_sidecar(
        pod: WorkloadIdentity,
        mut raw: RawAttributes,
        keystore_password: Option<SecretString>,
        usual: Dialect,
    ) -> Result<Self, AttributeErrors> {
        within_limits(&raw).map_err(|fault| AttributeErrors::new(vec![fault]))?;
        let mistyped_passwords = take_mistyped(&mut raw, usual);
        Ok(Self { pod, tokens: PodTokens::default(), raw, mistyped_passwords, keystore_password })
    }

    /// Splits a volume context. Tokens in `secrets` (`serviceAccountTokenInSecrets`) win over those in the context. `usual` is the
    /// prefix of volumes without attributes. The error lists all faults.
    pub fn parse(
        mut volume_context: HashMap<String, String>,
        mut secrets: HashMap<String, String>,
        usual: Dialect,
    ) -> Result<Self, AttributeErrors> {
        let mut kubelet: HashMap<_, _> =
            volume_context.extract_if(|key, _| key.starts_with(KUBELET_GROUP)).collect();
        let mut raw: RawAttributes = volume_context.into_iter().collect();
        let mut faults: Vec<AttributeError> = within_limits(&raw).err().into_iter().collect();
        let mut required = |key: &str| {
            kubelet.remove(key).filter(|value| !value.is_empty()).unwrap_or_else(|| {
                let accepted = "the value that the kubelet sets if the CSIDriver has podInfoOnMount: true";
                faults.push(AttributeError::missing(key, accepted));
                String::new()
            })
        };
        let pod = WorkloadIdentity {
            namespace: required(POD_NAMESPACE),
            name: required(POD_NAME),
            uid: required(POD_UID),
            service_account: required(SERVICE_ACCOUNT),
        };
        faults.extend(ephemeral(kubelet.get(EPHEMERAL).map(String::as_str)).err());
        let in_context = kubelet.remove(TOKENS).map(Zeroizing::new);
        let in_secrets = secrets.remove(TOKENS).map(Zeroizing::new);
        let json = [in_secrets, in_context].into_iter().flatten().find(|json| !json.is_empty());
        let tokens = json.map_or_else(|| Ok(PodTokens::default()), |json| tokens(&json));
        match tokens {
            Ok(tokens) if faults.is_empty() => {
                let mistyped_passwords = take_mistyped(&mut raw, usual);
                let key = Key::Pkcs12PasswordKey;
                let named = raw.map().get(&key.full(Dialect::Certlet)).filter(|name| !name.is_empty());
                let password = secrets.remove(named.map_or(DEFAULT_SECRET_KEY, String::as_str));
                for mut unused in secrets.into_values() {
                    unused.zeroize();
                }
                let keystore_password = password.map(SecretString::from);
                Ok(Self { pod, tokens, raw, mistyped_passwords, keystore_password })
            }
            tokens => {
                faults.extend(tokens.err());
                Err(AttributeErrors::new(faults))
            }
        }
    }
}

/// Checks the size before anything is parsed. Kubernetes sets no limit, so a pod could keep the driver busy with parsing,
/// or fill the store with records.
pub(super) fn within_limits(raw: &RawAttributes) -> Result<(), AttributeError> {
    let (count, bytes) = (raw.map().len(), raw.bytes());
    if bytes <= MAX_BYTES && count <= MAX_ATTRIBUTES {
        return Ok(());
    }
    Err(AttributeError::new(
        "volumeAttributes",
        format_args!("are {count} with {bytes} bytes"),
        format_args!("at most {MAX_ATTRIBUTES} with {MAX_BYTES} bytes, names and values together"),
    ))
}

/// Refuses a volume that is not ephemeral: it would keep the certificate of a pod that no longer exists.
fn ephemeral(value: Option<&str>) -> Result<(), AttributeError> {
    let accepted = "\"true\", as the kubelet sets it for a volume that is declared in the pod itself (spec.volumes[].csi)";
    match value {
        Some("true") => Ok(()),
        Some(other) => {
            let problem = format!("{} is not an ephemeral inline volume", shown(other));
            Err(AttributeError::new(EPHEMERAL, problem, accepted))
        }
        None => Err(AttributeError::missing(EPHEMERAL, accepted)),
    }
}

/// Reads the kubelet's tokens. An error must not show any part of them, so the JSON parser's own message is dropped.
fn tokens(json: &str) -> Result<PodTokens, AttributeError> {
    let malformed = || {
        let problem = "does not hold the JSON that the kubelet sends (its content is not shown)";
        let accepted = r#"{"AUDIENCE":{"token":"...","expirationTimestamp":"RFC 3339 time"}}"#;
        AttributeError::new(TOKENS, problem, accepted)
    };
    let tokens: PodTokens = serde_json::from_str(json).map_err(|_| malformed())?;
    if tokens.0.values().any(|token| token.token.expose_secret().is_empty()) {
        return Err(malformed());
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(extra: &[(&str, &str)]) -> HashMap<String, String> {
        let kubelet = [
            (POD_NAME, "cart-0"),
            (POD_NAMESPACE, "shop"),
            (POD_UID, "b8f1"),
            (SERVICE_ACCOUNT, "cart"),
            (EPHEMERAL, "true"),
        ];
        kubelet.iter().chain(extra).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn json(token: &str) -> String {
        format!(r#"{{"":{{"token":"{token}","expirationTimestamp":"2030-01-02T03:04:05Z","x":1}}}}"#)
    }

    #[test]
    fn the_authors_attributes_do_not_hold_the_kubelets_keys() {
        let extra = [("csi.certlet.io/issuer-name", "ca"), ("csi.storage.k8s.io/fsGroup", "ignored")];
        let context = VolumeContext::parse(context(&extra), HashMap::new(), Dialect::Certlet).unwrap();
        assert_eq!(context.pod.name, "cart-0");
        assert_eq!(context.pod.namespace, "shop");
        assert_eq!(context.pod.uid, "b8f1");
        assert_eq!(context.pod.service_account, "cart");
        assert!(context.tokens.is_empty());
        assert_eq!(context.raw.map().len(), 1);
        assert_eq!(context.raw.value("csi.certlet.io/issuer-name"), Some("ca"));
    }

    #[test]
    fn every_missing_key_of_the_kubelet_is_reported() {
        let errors = VolumeContext::parse(HashMap::new(), HashMap::new(), Dialect::Certlet).unwrap_err();
        let attributes: Vec<_> = errors.first().iter().map(AttributeError::attribute).collect();
        assert_eq!(attributes, [EPHEMERAL, POD_NAME, POD_NAMESPACE, POD_UID, SERVICE_ACCOUNT]);
    }

    #[test]
    fn a_volume_that_is_not_ephemeral_is_refused() {
        for value in ["false", "True", ""] {
            let errors =
                VolumeContext::parse(context(&[(EPHEMERAL, value)]), HashMap::new(), Dialect::Certlet)
                    .unwrap_err();
            assert!(errors.to_string().starts_with(EPHEMERAL), "{errors}");
        }
    }

    #[test]
    fn tokens_in_secrets_win_over_those_in_the_context() {
        let in_context = context(&[(TOKENS, &json("old"))]);
        let secrets = HashMap::from([(TOKENS.to_owned(), json("new"))]);
        let context = VolumeContext::parse(in_context.clone(), secrets, Dialect::Certlet).unwrap();
        let token = context.tokens.audience("").unwrap();
        assert_eq!(token.token.expose_secret(), "new");
        assert_eq!(token.expires_at, "2030-01-02T03:04:05Z".parse().unwrap());
        let context = VolumeContext::parse(in_context, HashMap::new(), Dialect::Certlet).unwrap();
        assert_eq!(context.tokens.audience("").unwrap().token.expose_secret(), "old");
        assert!(context.tokens.audience("other").is_none());
    }

    #[test]
    fn malformed_tokens_are_refused_without_showing_them() {
        let bad = [
            "hunter2".to_owned(),
            json("hunter2").replace("2030", "hunter2"),
            r#"{"":"hunter2"}"#.into(),
            r#"{"":{"hunter2":1}}"#.into(),
            json(""),
            format!("{}hunter2", json("a")),
        ];
        for tokens in bad {
            let errors =
                VolumeContext::parse(context(&[(TOKENS, &tokens)]), HashMap::new(), Dialect::Certlet)
                    .unwrap_err();
            assert!(errors.to_string().starts_with(TOKENS), "{errors}");
            assert!(!format!("{errors} {errors:?}").contains("hunter"), "{errors}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let context =
            VolumeContext::parse(context(&[(TOKENS, &json("hunter2"))]), HashMap::new(), Dialect::Certlet)
                .unwrap();
        assert!(!format!("{context:?}").contains("hunter2"));
    }
}
