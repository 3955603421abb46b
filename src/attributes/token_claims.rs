//! Whose a service account token is, by its own claims.
//!
//! The signature is not verified here: the API server authenticates the token when a request is made with it. The comparison finds a
//! kubelet, or whoever calls in its place, that says one pod and hands over the token of another.

use super::context::{TOKENS, VolumeContext};
use super::errors::{AttributeError, AttributeErrors};
use crate::model::{CertificateSpec, WorkloadIdentity, shown};
use base64ct::{Base64UrlUnpadded, Encoding};
use secrecy::ExposeSecret;
use serde::Deserialize;

/// The private claims that Kubernetes puts into a token of a pod.
#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Claims,
}

#[derive(Deserialize)]
struct Claims {
    namespace: String,
    serviceaccount: Named,
    pod: Named,
    /// From Kubernetes 1.30 on.
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

/// An error if one of the pod's tokens is that of another pod. Claims that cannot be read are an error with `spiffe: "true"` only.
pub(crate) fn check_tokens(spec: &CertificateSpec, context: &VolumeContext) -> Result<(), AttributeErrors> {
    let mut faults = Vec::new();
    for (audience, token) in context.tokens.iter() {
        let problem = match workload_of(token.token.expose_secret()) {
            Some(workload) if workload == context.pod => continue,
            Some(workload) => {
                format!("is that of {}, but the kubelet says {}", told(&workload), told(&context.pod))
            }
            None if spec.is_spiffe => "has no claims of a pod (its content is not shown)".to_owned(),
            None => continue,
        };
        let problem = format!("the token for the audience {} {problem}", shown(audience));
        faults.push(AttributeError::new(
            TOKENS,
            problem,
            "tokens of the pod itself, as the kubelet requests them",
        ));
    }
    if faults.is_empty() { Ok(()) } else { Err(AttributeErrors::new(faults)) }
}

/// The workload that a token's claims name; none if it is not a token of a pod.
pub(crate) fn workload_of(token: &str) -> Option<WorkloadIdentity> {
    let Claims { namespace, serviceaccount, pod, .. } = claims(token)?;
    Some(WorkloadIdentity { namespace, name: pod.name, uid: pod.uid, service_account: serviceaccount.name })
}

/// The node that a token's claims name; none if it is not a token of a pod, or names none.
pub(crate) fn node_of(token: &str) -> Option<String> {
    claims(token)?.node.map(|node| node.name)
}

fn claims(token: &str) -> Option<Claims> {
    let payload = Base64UrlUnpadded::decode_vec(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Payload>(&payload).ok().map(|payload| payload.kubernetes)
}

fn told(workload: &WorkloadIdentity) -> String {
    let WorkloadIdentity { namespace, name, uid, service_account } = workload;
    let [pod, uid, account] =
        [format!("{namespace}/{name}"), uid.clone(), service_account.clone()].map(|text| shown(&text));
    format!("the pod {pod} with the uid {uid} and the service account {account}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::OperatorDefaults;
    use crate::attributes::defaults::{SPIFFE_ID_TEMPLATE, SpiffeIds};
    use crate::model::Dialect;
    use std::collections::HashMap;

    /// What the check says of a token in a volume.
    fn checked(token: &str, spiffe: &str) -> Result<(), String> {
        let tokens =
            format!(r#"{{"api":{{"token":"{token}","expirationTimestamp":"2030-01-02T03:04:05Z"}}}}"#);
        let context = [
            ("csi.storage.k8s.io/pod.name", "cart-0"),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("csi.storage.k8s.io/pod.uid", "b8f1"),
            ("csi.storage.k8s.io/serviceAccount.name", "cart"),
            ("csi.storage.k8s.io/ephemeral", "true"),
            (TOKENS, &tokens),
            ("csi.certlet.io/signer", "local"),
            ("csi.certlet.io/spiffe", spiffe),
        ];
        let context: HashMap<_, _> = context.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let context = VolumeContext::parse(context, HashMap::new(), Dialect::Certlet).unwrap();
        let ids = SpiffeIds::new("example.org", SPIFFE_ID_TEMPLATE).unwrap();
        let defaults = OperatorDefaults { spiffe_ids: Some(ids), ..OperatorDefaults::default() };
        let spec = crate::attributes::parse(&context.raw, &context.pod, &defaults).unwrap();
        check_tokens(&spec, &context).map_err(|errors| errors.to_string())
    }

    fn token([namespace, account, pod, uid]: [&str; 4]) -> String {
        let payload = format!(
            r#"{{"aud":["api"],"kubernetes.io":{{"namespace":"{namespace}","node":{{"name":"n"}},"pod":{{"name":"{pod}","uid":"{uid}"}},"serviceaccount":{{"name":"{account}","uid":"x"}}}}}}"#
        );
        format!("header.{}.hunter2", Base64UrlUnpadded::encode_string(payload.as_bytes()))
    }

    #[test]
    fn the_pods_own_token_is_accepted() {
        for spiffe in ["true", "false"] {
            assert_eq!(checked(&token(["shop", "cart", "cart-0", "b8f1"]), spiffe), Ok(()));
        }
    }

    #[test]
    fn a_token_of_another_pod_is_refused_and_both_are_named() {
        for other in [
            ["bank", "cart", "cart-0", "b8f1"],
            ["shop", "admin", "cart-0", "b8f1"],
            ["shop", "cart", "cart-1", "b8f1"],
            ["shop", "cart", "cart-0", "c9a2"],
        ] {
            for spiffe in ["true", "false"] {
                let [namespace, account, pod, uid] = other;
                assert_eq!(
                    checked(&token(other), spiffe).unwrap_err(),
                    format!(
                        "csi.storage.k8s.io/serviceAccount.tokens: the token for the audience \"api\" is that of the pod \
                         \"{namespace}/{pod}\" with the uid \"{uid}\" and the service account \"{account}\", but the kubelet \
                         says the pod \"shop/cart-0\" with the uid \"b8f1\" and the service account \"cart\"; accepted: tokens \
                         of the pod itself, as the kubelet requests them"
                    )
                );
            }
        }
    }

    #[test]
    fn a_token_without_claims_of_a_pod_is_refused_for_a_spiffe_id_alone_and_never_shown() {
        let encoded = |payload: &str| format!("h.{}.s", Base64UrlUnpadded::encode_string(payload.as_bytes()));
        for odd in [
            "hunter2".to_owned(),
            "h.hunter2.s".into(),
            encoded("{}"),
            encoded(r#"{"kubernetes.io":{"namespace":"shop"}}"#),
        ] {
            assert_eq!(checked(&odd, "false"), Ok(()), "{odd}");
            let refused = checked(&odd, "true").unwrap_err();
            assert!(refused.contains("has no claims of a pod (its content is not shown)"), "{refused}");
            assert!(!refused.contains("hunter"), "{refused}");
        }
    }
}
