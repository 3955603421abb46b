//! What a failed call to the API server means for a signing.

use crate::attributes::PodIdentity;
use crate::kube::CallError;
use crate::signer::SignError;

/// What was being done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// A create.
    Create {
        /// With the pod's own token.
        as_pod: bool,
    },
    /// A get of a CertificateRequest.
    Get,
    /// A get of the pod, for the readiness gates.
    ReadPod,
}

impl Action {
    fn verb(self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Get | Self::ReadPod => "get",
        }
    }

    fn group_and_resource(self) -> (&'static str, &'static str) {
        match self {
            Self::Create { .. } | Self::Get => ("cert-manager.io", "certificaterequests"),
            Self::ReadPod => ("\"\"", "pods"),
        }
    }

    /// Whose rights it needs.
    fn subject(self, pod: &PodIdentity) -> String {
        match self {
            Self::Create { as_pod: true } => {
                format!("service account {} in namespace {}", pod.service_account, pod.namespace)
            }
            _ => "certlet's service account".to_owned(),
        }
    }
}

/// The class is by what the server says; the words are the server's own, with what to do about them.
pub(super) fn sign_error(error: &CallError, action: Action, pod: &PodIdentity) -> SignError {
    let (group, resource) = action.group_and_resource();
    let verb = action.verb();
    match error {
        CallError::Refused { code: 429, retry_after, .. }
        | CallError::Refused { code: 503, retry_after: retry_after @ Some(_), .. } => {
            SignError::Throttled { reason: error.to_string(), retry_after: *retry_after }
        }
        CallError::Refused { code: 403, message, .. } if is_missing_right(message) => SignError::Permanent {
            reason: format!(
                "{message}; {} lacks the rule apiGroups: [{group}], resources: [{resource}], verbs: [{verb}]",
                action.subject(pod)
            ),
        },
        // An admission policy, a quota, a namespace that is going away: the message says it.
        CallError::Refused { code: 400 | 403 | 413 | 422, message, .. } => SignError::Permanent {
            reason: format!(
                "the API server refuses to {verb} {resource} in namespace {}: {message}",
                pod.namespace
            ),
        },
        CallError::Refused { code: 401, .. } => SignError::Transient {
            reason: match action {
                Action::Create { as_pod: true } => format!(
                    "the API server does not accept the token of service account {} in namespace {}: it has expired, or \
                     its audience (--token-request-audience) is not the API server's",
                    pod.service_account, pod.namespace
                ),
                _ => "the API server does not accept certlet's own credentials".to_owned(),
            },
        },
        CallError::Refused { code: 404, message, .. } => SignError::Transient {
            reason: match action {
                Action::ReadPod => message.clone(),
                _ => format!(
                    "{message}: the namespace is gone, or cert-manager's CertificateRequest is not installed in this cluster"
                ),
            },
        },
        other => SignError::Transient { reason: format!("{verb} {resource}: {other}") },
    }
}

/// RBAC's refusals name the user and the verb; those of admission do not.
fn is_missing_right(message: &str) -> bool {
    message.contains("cannot ") && message.contains("User \"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn refused(code: u16, message: &str) -> CallError {
        let retry_after = Some(Duration::from_secs(5)).filter(|_| code == 429);
        CallError::Refused { code, reason: String::new(), message: message.to_owned(), retry_after }
    }

    fn meant(error: &CallError) -> SignError {
        let pod = PodIdentity {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u".into(),
            service_account: "web".into(),
        };
        sign_error(error, Action::Create { as_pod: true }, &pod)
    }

    #[test]
    fn a_missing_right_is_permanent_and_names_the_rule_and_who_lacks_it() {
        let message = r#"certificaterequests.cert-manager.io is forbidden: User "system:serviceaccount:shop:web" cannot create resource "certificaterequests" in API group "cert-manager.io" in the namespace "shop""#;
        let SignError::Permanent { reason } = meant(&refused(403, message)) else { panic!("not permanent") };
        for part in ["verbs: [create]", "resources: [certificaterequests]", "namespace shop", "account web"] {
            assert!(reason.contains(part), "{part} is not in {reason}");
        }
    }

    #[test]
    fn the_servers_word_decides_about_trying_again() {
        assert!(matches!(meant(&refused(429, "slow")), SignError::Throttled { retry_after: Some(_), .. }));
        assert!(matches!(meant(&refused(422, "bad")), SignError::Permanent { .. }));
        for passing in [refused(500, "oops"), refused(401, "no"), CallError::TimedOut] {
            assert!(matches!(meant(&passing), SignError::Transient { .. }), "{passing}");
        }
    }
}
