//! AWS STS: exchanges a pod's service account token for the credentials of an IAM role.

use super::answers::LimitedAnswers;
use super::errors::{CallError, ErrorKind};
use super::metrics::PcaMetrics;
use crate::model::{Failure, WorkloadIdentity, fingerprint};
use crate::signer::SigningRequest;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_acmpca::config::Credentials;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use std::time::SystemTime;

/// The audience of tokens for STS.
const AUDIENCE: &str = "sts.amazonaws.com";
const CALL: &str = "AssumeRoleWithWebIdentity";

/// The credentials of a role that the pod may assume.
pub(super) async fn assume(
    config: &SdkConfig,
    role: &str,
    request: &SigningRequest<'_>,
    now: Timestamp,
    metrics: &PcaMetrics,
) -> Result<Credentials, Failure> {
    let pod = request.identity;
    let prefix = format!("role-arn: {role}");
    let token = request.token(AUDIENCE, &prefix, now)?;
    let config = config.to_builder().retry_config(RetryConfig::standard()).build();
    let call = aws_sdk_sts::Client::from_conf(
        aws_sdk_sts::config::Builder::from(&config).interceptor(LimitedAnswers).build(),
    );
    let call = call.assume_role_with_web_identity();
    let call = call.role_arn(role).role_session_name(session_name(pod));
    let answer = call.web_identity_token(token.expose_secret()).send().await;
    let answer = answer.map_err(|error| CallError::from_sdk(CALL, error));
    metrics.call(CALL, answer.as_ref().err().map_or("ok", |error| &error.code));
    let given = answer.map_err(|error| {
        if error.kind == ErrorKind::Denied {
            return Failure::permanent(format!(
                "{prefix}: {CALL}: {}: let the role's trust policy name the cluster's OIDC provider with \
                 system:serviceaccount:{}:{} as subject and {AUDIENCE} as audience",
                error.code, pod.namespace, pod.service_account
            ));
        }
        let failure = Failure::from(error);
        Failure { message: format!("{prefix}: {}", failure.message), ..failure }
    })?;
    given
        .credentials
        .and_then(credentials)
        .ok_or_else(|| Failure::transient(format!("{prefix}: STS has answered without credentials")))
}

fn credentials(given: aws_sdk_sts::types::Credentials) -> Option<Credentials> {
    let expires_at = SystemTime::try_from(given.expiration).ok()?;
    let (id, secret, session) = (given.access_key_id, given.secret_access_key, given.session_token);
    Some(Credentials::new(id, secret, Some(session), Some(expires_at), "certlet-pod-role"))
}

/// The session's name in CloudTrail: `NAMESPACE@SERVICEACCOUNT@POD`, in the characters and the length that STS accepts. In a
/// longer one a hash replaces the end.
fn session_name(pod: &WorkloadIdentity) -> String {
    const MAX_LENGTH: usize = 64;
    let whole = format!("{}@{}@{}", pod.namespace, pod.service_account, pod.name);
    let accepted = |c: char| if c.is_ascii_alphanumeric() || "_+=,.@-".contains(c) { c } else { '_' };
    let name: String = whole.chars().map(accepted).collect();
    if name.len() <= MAX_LENGTH {
        return name;
    }
    let hash = fingerprint(&[whole.as_bytes()]);
    format!("{name:.length$}-{hash:.8}", length = MAX_LENGTH - 9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::testing::pod;

    #[test]
    fn the_session_name_shows_the_pod_in_a_form_that_sts_accepts() {
        let pod = |name: &str| WorkloadIdentity { name: name.into(), ..pod() };
        assert_eq!(session_name(&pod("web-0")), "shop@web@web-0");
        let long =
            [session_name(&pod(&"a".repeat(250))), session_name(&pod(&format!("{}b", "a".repeat(249))))];
        assert_ne!(long[0], long[1]);
        for name in long {
            assert_eq!(name.len(), 64);
            assert!(name.starts_with("shop@web@aaa"), "{name}");
        }
        assert_eq!(session_name(&pod("ü/0")), "shop@web@__0");
    }
}
