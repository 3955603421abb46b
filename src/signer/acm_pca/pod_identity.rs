//! EKS Pod Identity: the credentials of the role that is associated with the pod's service account, from the agent on
//! this node.
//!
//! The agent speaks the SDKs' container credentials protocol: a GET with the pod's token in the Authorization header,
//! answered in JSON; an error is a status of the EKS Auth API and a line of text. The SDK's own provider for it takes its
//! token from the environment only, which is one for the whole process.

use super::agent;
use super::metrics::PcaMetrics;
use crate::model::{Failure, jitter};
use crate::model::{PodTokens, WorkloadIdentity};
use crate::signer::SigningRequest;
use aws_sdk_acmpca::config::Credentials;
use http::{StatusCode, Uri};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::{Duration, SystemTime};

/// The audience of the tokens that EKS Pod Identity takes.
const AUDIENCE: &str = "pods.eks.amazonaws.com";
/// What it is in metrics: the call of the EKS Auth API that the agent makes.
const CALL: &str = "AssumeRoleForPodIdentity";
/// Pauses before a passing failure is met again; the volume's own retries go on from there.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];
/// How much of the agent's own words a message repeats.
const SHOWN_CHARACTERS: usize = 300;

/// The EKS Pod Identity agent of this node.
#[derive(Debug)]
pub(crate) struct Agent {
    endpoints: Vec<Uri>,
}

/// What to do about an answer that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Throttled,
    Transient,
    Permanent,
}

/// Why there are no credentials.
#[derive(Debug)]
struct AgentFailure {
    class: Class,
    /// For metrics, and so one of few.
    code: String,
    message: String,
}

/// Errors of the EKS Auth API, by its word for them in the agent's text. Older agents passed
/// some of them on with status 500.
const CODES: [(&str, Class, &str); 8] = [
    (
        "ResourceNotFoundException",
        Class::Permanent,
        "associate a role with service account {account} (aws eks create-pod-identity-association)",
    ),
    (
        "AccessDeniedException",
        Class::Permanent,
        "let the trust policy of the role that is associated with service account {account} allow sts:AssumeRole and \
         sts:TagSession to the service pods.eks.amazonaws.com, and the node's role eks-auth:AssumeRoleForPodIdentity",
    ),
    ("ExpiredTokenException", Class::Transient, "the kubelet's next call brings a new token"),
    ("InvalidTokenException", Class::Permanent, "the token must be of this cluster's own API server"),
    ("InvalidParameterException", Class::Permanent, ""),
    ("ThrottlingException", Class::Throttled, ""),
    ("ServiceUnavailableException", Class::Transient, ""),
    ("InternalServerException", Class::Transient, ""),
];

impl Agent {
    /// The agent at the first of these addresses that takes a connection.
    pub(crate) fn new(endpoints: Vec<Uri>) -> Self {
        Self { endpoints }
    }

    /// The credentials that the agent gives for the pod's token.
    pub(crate) async fn credentials(
        &self,
        request: &SigningRequest<'_>,
        now: Timestamp,
        metrics: &PcaMetrics,
    ) -> Result<Credentials, Failure> {
        let token = token(request.tokens, now)?;
        let mut pauses = PAUSES.iter().zip(0_u32..);
        loop {
            let answer = self.ask(token).await.and_then(|text| read(&text, now));
            metrics.call(CALL, answer.as_ref().err().map_or("ok", |failure| &failure.code));
            let failure = match answer {
                Ok(credentials) => return Ok(credentials),
                Err(failure) => failure,
            };
            match pauses.next() {
                Some((pause, attempt)) if failure.class != Class::Permanent => {
                    let seed = request.id.as_str();
                    tokio::time::sleep(pause.mul_f64(0.5 + jitter(seed, &attempt.to_be_bytes()))).await;
                }
                _ => return Err(failure.into_sign_error(request.identity)),
            }
        }
    }

    async fn ask(&self, token: &SecretString) -> Result<SecretString, AgentFailure> {
        let mut unreachable = Vec::new();
        for endpoint in &self.endpoints {
            let stream = match agent::connect(endpoint).await {
                Ok(stream) => stream,
                Err(why) => {
                    unreachable.push(format!("{endpoint}: {why}"));
                    continue;
                }
            };
            let answer = agent::ask(stream, endpoint, token).await;
            let (status, text) = answer.map_err(|why| AgentFailure::transient("connection", why))?;
            return if status.is_success() { Ok(text) } else { Err(AgentFailure::of(status, &text, token)) };
        }
        Err(AgentFailure::transient(
            "connection",
            format!(
                "the EKS Pod Identity agent cannot be reached ({}): install the add-on eks-pod-identity-agent, or set \
                 --pca-pod-identity-endpoint",
                unreachable.join("; ")
            ),
        ))
    }
}

fn token(tokens: &PodTokens, now: Timestamp) -> Result<&SecretString, Failure> {
    let waits = |what: String| Err(Failure::transient(format!("use-pod-identity: {what}")));
    match tokens.audience(AUDIENCE) {
        Some(token) if token.expires_at > now => Ok(&token.token),
        Some(_) => waits("the pod's token has expired; the kubelet's next call brings a new one".to_owned()),
        // After a restart there are no tokens until the kubelet calls again.
        None => waits(format!(
            "the kubelet has sent no token for {AUDIENCE}; the CSIDriver object must have it among its tokenRequests, and \
             requiresRepublish: true"
        )),
    }
}

/// The agent's answer, as in the container credentials protocol; `AccountId` is not needed here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: SecretString,
    token: SecretString,
    expiration: Timestamp,
}

/// Reads credentials. The JSON parser's own message might repeat some of them.
fn read(text: &SecretString, now: Timestamp) -> Result<Credentials, AgentFailure> {
    let nothing = || {
        AgentFailure::transient(
            "response",
            "the EKS Pod Identity agent has answered without credentials".to_owned(),
        )
    };
    let answer: Answer = serde_json::from_str(text.expose_secret()).map_err(|_| nothing())?;
    if answer.access_key_id.is_empty() || answer.expiration <= now {
        return Err(nothing());
    }
    let (secret, token) = (answer.secret_access_key.expose_secret(), answer.token.expose_secret().to_owned());
    let expires_at = Some(SystemTime::from(answer.expiration));
    Ok(Credentials::new(answer.access_key_id, secret, Some(token), expires_at, "certlet-pod-identity"))
}

impl AgentFailure {
    fn transient(code: &str, message: String) -> Self {
        Self { class: Class::Transient, code: code.to_owned(), message }
    }

    /// Sorts a refusal, by the word in it where it is a known one, and by its status otherwise.
    fn of(status: StatusCode, text: &SecretString, token: &SecretString) -> Self {
        let said: String = text.expose_secret().replace(token.expose_secret(), "(token)");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said: String = said.chars().take(SHOWN_CHARACTERS).collect();
        let known = CODES.iter().find(|(word, ..)| said.contains(word));
        let (class, code, advice) = match (known, status.as_u16()) {
            (Some((word, class, advice)), _) => (*class, (*word).to_owned(), *advice),
            (None, number @ 404) => (Class::Permanent, number.to_string(), CODES[0].2),
            (None, number @ 403) => {
                (Class::Permanent, number.to_string(), "look at --pca-pod-identity-endpoint")
            }
            (None, number @ 429) => (Class::Throttled, number.to_string(), ""),
            (None, number @ 400..=499) => (Class::Permanent, number.to_string(), ""),
            (None, number) => (Class::Transient, number.to_string(), ""),
        };
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        Self { class, code, message: format!("the EKS Pod Identity agent answers {status}: {said}{advice}") }
    }

    fn into_sign_error(self, pod: &WorkloadIdentity) -> Failure {
        let account = format!("{} in namespace {}", pod.service_account, pod.namespace);
        let reason = format!("use-pod-identity: {}", self.message.replace("{account}", &account));
        match self.class {
            Class::Throttled => Failure::throttled(reason, None),
            Class::Transient => Failure::transient(reason),
            Class::Permanent => Failure::permanent(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, text: &str) -> AgentFailure {
        AgentFailure::of(StatusCode::from_u16(status).unwrap(), &text.into(), &"secret".into())
    }

    #[test]
    fn refusals_are_sorted_by_the_word_in_them_and_else_by_their_status() {
        for (status, text, class, code) in [
            (
                404,
                "[id]: (ResourceNotFoundException): no association, fault: client",
                Class::Permanent,
                "ResourceNotFoundException",
            ),
            (
                500,
                "operation error EKS Auth: AccessDeniedException: no",
                Class::Permanent,
                "AccessDeniedException",
            ),
            (
                400,
                "[id]: (ExpiredTokenException): late, fault: client",
                Class::Transient,
                "ExpiredTokenException",
            ),
            (404, "404 page not found", Class::Permanent, "404"),
            (403, "Access Denied. Called agent through invalid address", Class::Permanent, "403"),
            (429, "Too Many Requests.", Class::Throttled, "429"),
            (400, "Service account token cannot be empty", Class::Permanent, "400"),
            (503, "", Class::Transient, "503"),
        ] {
            let failure = failure(status, text);
            assert_eq!((failure.class, failure.code.as_str()), (class, code), "{status} {text}");
        }
    }

    #[test]
    fn a_refusal_is_one_short_line_without_the_token() {
        let long = failure(500, &format!("a\n secret {}", "x".repeat(1000))).message;
        assert!(
            long.starts_with("the EKS Pod Identity agent answers 500 Internal Server Error: a (token) xxx")
        );
        assert!(long.len() < 400 && !long.contains("secret") && !long.contains('\n'), "{long}");
    }

    #[test]
    fn credentials_are_read_as_the_agent_writes_them() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let written = r#"{"AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","AccountId":"1",
            "Expiration":"2026-01-01T06:00:00.123456789Z"}"#;
        let credentials = read(&written.into(), now).unwrap();
        assert_eq!((credentials.access_key_id(), credentials.session_token()), ("ASIA", Some("t")));
        assert!(credentials.expiry().is_some());
        for odd in [
            "",
            "<html>",
            "{}",
            &written.replace("ASIA", ""),
            &written.replace("2026-01-01T06", "2025-01-01T06"),
        ] {
            assert_eq!(read(&odd.into(), now).unwrap_err().class, Class::Transient, "{odd}");
        }
    }
}
