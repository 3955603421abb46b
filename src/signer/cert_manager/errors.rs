//! Maps a failed call to the API server to the failure of a signing.

use crate::kube::CallError;
use crate::model::{Failure, WorkloadIdentity};

/// What was called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// A create of a CertificateRequest.
    Create {
        /// With the pod's own token.
        as_pod: bool,
    },
    /// A get of a CertificateRequest.
    Get,
    /// A create of a `SelfSubjectReview`, for the driver's own name.
    Review,
    /// A get of the pod, for the readiness gates.
    ReadPod,
}

/// The failure that the server's answer means. Its message is the server's own, with what to do about it.
pub(super) fn sign_error(error: &CallError, action: Action, pod: &WorkloadIdentity) -> Failure {
    let (verb, group, resource) = match action {
        Action::Create { .. } => ("create", "cert-manager.io", "certificaterequests"),
        Action::Get => ("get", "cert-manager.io", "certificaterequests"),
        Action::Review => ("create", "authentication.k8s.io", "selfsubjectreviews"),
        Action::ReadPod => ("get", "\"\"", "pods"),
    };
    let as_pod = matches!(action, Action::Create { as_pod: true });
    let pods_account = || format!("service account {} in namespace {}", pod.service_account, pod.namespace);
    match error {
        CallError::Refused { code: 429, retry_after, .. }
        | CallError::Refused { code: 503, retry_after: retry_after @ Some(_), .. } => {
            Failure::throttled(error.to_string(), *retry_after)
        }
        CallError::Refused { code: 403, message, .. } if is_rbac_refusal(message) => {
            let account = if as_pod { pods_account() } else { "this service account".to_owned() };
            Failure::permanent(format!(
                "{message}; {account} lacks the rule apiGroups: [{group}], resources: [{resource}], verbs: [{verb}]"
            ))
        }
        // An admission policy, a quota, a namespace that is being deleted: the message says which.
        CallError::Refused { code: 400 | 403 | 413 | 422, message, .. } => Failure::permanent(format!(
            "the API server refuses to {verb} {resource} in namespace {}: {message}",
            pod.namespace
        )),
        CallError::Refused { code: 401, .. } if as_pod => Failure::transient(format!(
            "the API server does not accept the token of {}: it has expired, or its audience \
             (--token-request-audience) is not the API server's",
            pods_account()
        )),
        CallError::Refused { code: 401, .. } => {
            Failure::transient("the API server does not accept certlet's own credentials")
        }
        CallError::Refused { code: 404, message, .. } if resource == "certificaterequests" => {
            Failure::transient(format!(
                "{message}: the namespace is gone, or cert-manager's CertificateRequest is not installed in this \
                 cluster"
            ))
        }
        other => Failure::transient(format!("{verb} {resource}: {other}")),
    }
}

/// RBAC names the user and the verb; admission does not.
fn is_rbac_refusal(message: &str) -> bool {
    message.contains("cannot ") && message.contains("User \"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailureKind;
    use crate::x509::testing::pod;
    use std::time::Duration;

    fn refused(code: u16, message: &str) -> CallError {
        let retry_after = Some(Duration::from_secs(5)).filter(|_| code == 429);
        CallError::Refused { code, reason: String::new(), message: message.to_owned(), retry_after }
    }

    fn failure_of(error: &CallError) -> Failure {
        sign_error(error, Action::Create { as_pod: true }, &pod())
    }

    #[test]
    fn a_missing_permission_is_permanent_and_names_the_rule_and_who_lacks_it() {
        let message = r#"certificaterequests.cert-manager.io is forbidden: User "system:serviceaccount:shop:web" cannot create resource "certificaterequests" in API group "cert-manager.io" in the namespace "shop""#;
        let failure = failure_of(&refused(403, message));
        assert_eq!(failure.kind, FailureKind::Permanent);
        let reason = failure.message;
        for part in ["verbs: [create]", "resources: [certificaterequests]", "namespace shop", "account web"] {
            assert!(reason.contains(part), "{part} is not in {reason}");
        }
    }

    #[test]
    fn the_status_code_decides_about_retries() {
        let slow = failure_of(&refused(429, "slow"));
        assert_eq!((slow.kind, slow.retry_after.is_some()), (FailureKind::Throttled, true));
        assert_eq!(failure_of(&refused(422, "bad")).kind, FailureKind::Permanent);
        for passing in [refused(500, "oops"), refused(401, "no"), CallError::TimedOut] {
            assert_eq!(failure_of(&passing).kind, FailureKind::Transient, "{passing}");
        }
    }
}
