//! Whose credentials a call is made with: the driver's own, or those of a role that the pod has.
//!
//! All clients share one pool of connections. Credentials live in memory only.

use super::arn::AuthorityArn;
use super::errors::{CallError, Class};
use super::metrics::PcaMetrics;
use super::pod_identity::Agent;
use crate::model::{Failure, FailureKind, fingerprint};
use crate::model::{PcaCaller, PodToken, PodTokens, WorkloadIdentity};
use crate::platform::Clock;
use crate::signer::SigningRequest;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::config::{Credentials, SharedHttpClient};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

/// The audience of the tokens that STS takes.
const STS_AUDIENCE: &str = "sts.amazonaws.com";
/// Credentials with less left than this are replaced before they are used.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// Where they cannot be replaced for the moment, they are used while they have more left than this.
const LAST: SignedDuration = SignedDuration::from_secs(30);

/// Clients by Region and caller.
pub(crate) struct Callers {
    http: SharedHttpClient,
    base: OnceCell<SdkConfig>,
    agent: Agent,
    drivers: Mutex<HashMap<String, Client>>,
    roles: Mutex<HashMap<RoleKey, RoleSlot>>,
}

/// A role as one pod takes it: CloudTrail shows each pod's own session. No token is part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RoleKey {
    caller: PcaCaller,
    region: String,
    pod_uid: String,
    service_account: String,
}

type RoleSlot = Arc<AsyncMutex<Option<RoleClient>>>;

struct RoleClient {
    client: Client,
    expires_at: Timestamp,
}

impl Callers {
    /// No caller yet; `agent` gives pods their credentials by EKS Pod Identity.
    pub(crate) fn new(agent: Agent) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        Self { http, base: OnceCell::new(), agent, drivers: Mutex::default(), roles: Mutex::default() }
    }

    /// The client for a request.
    pub(crate) async fn client(
        &self,
        request: &SigningRequest<'_>,
        authority: &AuthorityArn,
        metrics: &PcaMetrics,
        clock: &dyn Clock,
    ) -> Result<Client, Failure> {
        let Some(key) = key(request, authority) else { return Ok(self.driver(&authority.region).await) };
        let slot = self.slot(&key, clock.now());
        let mut slot = slot.lock().await;
        let now = clock.now();
        let kept = slot.as_ref().map(|kept| (kept.client.clone(), kept.expires_at.duration_since(now)));
        if let Some((client, left)) = &kept
            && *left > AHEAD
        {
            return Ok(client.clone());
        }
        let config = self.config(&authority.region).await;
        let given = match &key.caller {
            PcaCaller::Role(role) => match token(request.tokens, role, now) {
                Ok(token) => assume(&config, role, request.identity, token, metrics).await,
                Err(error) => Err(error),
            },
            PcaCaller::PodIdentity | PcaCaller::Driver => self.agent.credentials(request, now, metrics).await,
        };
        let credentials = match (given, kept) {
            (Ok(credentials), _) => credentials,
            (Err(error), Some((client, left))) if left > LAST && error.kind != FailureKind::Permanent => {
                tracing::warn!(%error, seconds_left = left.as_secs(), "going on with older credentials of a pod's role");
                return Ok(client);
            }
            (Err(error), _) => return Err(error),
        };
        let expires_at = credentials.expiry().and_then(|at| Timestamp::try_from(at).ok()).unwrap_or(now);
        let config = config
            .into_builder()
            .credentials_provider(aws_sdk_acmpca::config::SharedCredentialsProvider::new(credentials));
        let client = Client::new(&config.build());
        *slot = Some(RoleClient { client: client.clone(), expires_at });
        Ok(client)
    }

    /// The client with the driver's own credentials.
    pub(crate) async fn driver(&self, region: &str) -> Client {
        if let Some(client) = lock(&self.drivers).get(region) {
            return client.clone();
        }
        let client = Client::new(&self.config(region).await);
        lock(&self.drivers).entry(region.to_owned()).or_insert(client).clone()
    }

    /// AWS does not take these credentials any more.
    pub(crate) fn forget(&self, request: &SigningRequest<'_>, authority: &AuthorityArn) {
        if let Some(key) = key(request, authority) {
            lock(&self.roles).remove(&key);
        }
    }

    /// The default chain's configuration, for a Region. The Region is the CA's, whatever the environment names; endpoints
    /// may come from the environment (`AWS_ENDPOINT_URL_ACM_PCA` and the like).
    async fn config(&self, region: &str) -> SdkConfig {
        let base = self
            .base
            .get_or_init(|| async {
                let timeouts = TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(3))
                    .operation_attempt_timeout(Duration::from_secs(15))
                    .build();
                aws_config::defaults(BehaviorVersion::latest())
                    .region(Region::new(region.to_owned()))
                    .http_client(self.http.clone())
                    // Every call is counted against the quotas: repeating is the caller's to do.
                    .retry_config(RetryConfig::disabled())
                    .timeout_config(timeouts)
                    .load()
                    .await
            })
            .await;
        base.to_builder().region(Region::new(region.to_owned())).build()
    }

    /// The slot of a caller. Others are dropped here that no call in progress shares and that hold no credentials, or expired
    /// ones: of pods that are gone, and of pods whose role could not be had.
    fn slot(&self, key: &RoleKey, now: Timestamp) -> RoleSlot {
        let mut slots = lock(&self.roles);
        slots.retain(|_, slot| {
            // Shares are taken under this lock only: what nobody shares now, nobody gets meanwhile.
            let Some(slot) = Arc::get_mut(slot) else { return true };
            slot.get_mut().as_ref().is_some_and(|role| role.expires_at > now)
        });
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

/// Where the credentials of the request's caller are kept; the driver keeps its own.
fn key(request: &SigningRequest<'_>, authority: &AuthorityArn) -> Option<RoleKey> {
    let pca = request.spec.signer.acm_pca().filter(|pca| pca.caller != PcaCaller::Driver)?;
    Some(RoleKey {
        caller: pca.caller.clone(),
        region: authority.region.clone(),
        pod_uid: request.identity.uid.clone(),
        service_account: request.identity.account(),
    })
}

fn token<'a>(tokens: &'a PodTokens, role: &str, now: Timestamp) -> Result<&'a PodToken, Failure> {
    match tokens.audience(STS_AUDIENCE) {
        Some(token) if token.expires_at > now => Ok(token),
        Some(_) => Err(Failure::transient(format!(
            "role-arn: {role}: the pod's token has expired; the kubelet's next call brings a new one"
        ))),
        // After a restart there are no tokens until the kubelet calls again.
        None => Err(Failure::transient(format!(
            "role-arn: {role}: the kubelet has sent no token for {STS_AUDIENCE}; the CSIDriver object must have it \
                 among its tokenRequests, and requiresRepublish: true"
        ))),
    }
}

async fn assume(
    config: &SdkConfig,
    role: &str,
    pod: &WorkloadIdentity,
    token: &PodToken,
    metrics: &PcaMetrics,
) -> Result<Credentials, Failure> {
    const CALL: &str = "AssumeRoleWithWebIdentity";
    let config = config.to_builder().retry_config(RetryConfig::standard()).build();
    let call = aws_sdk_sts::Client::new(&config).assume_role_with_web_identity();
    let call = call.role_arn(role).role_session_name(session_name(pod));
    let answer = call.web_identity_token(token.token.expose_secret()).send().await;
    let answer = answer.map_err(|error| CallError::of(CALL, error));
    metrics.call(CALL, answer.as_ref().err().map_or("ok", |error| &error.code));
    let nothing = || Failure::transient(format!("role-arn: {role}: STS has answered without credentials"));
    match answer {
        Ok(answer) => {
            let given = answer.credentials.ok_or_else(nothing)?;
            let expires_at = given.expiration().to_owned();
            let expires_at = std::time::SystemTime::try_from(expires_at).map_err(|_| nothing())?;
            let (id, secret) = (given.access_key_id(), given.secret_access_key());
            let session = Some(given.session_token().to_owned());
            Ok(Credentials::new(id, secret, session, Some(expires_at), "certlet-pod-role"))
        }
        Err(error) if error.class == Class::Denied => Err(Failure::permanent(format!(
            "role-arn: {role}: {CALL}: {}: let the role's trust policy name the cluster's OIDC provider with \
                 system:serviceaccount:{}:{} as subject and {STS_AUDIENCE} as audience",
            error.code, pod.namespace, pod.service_account
        ))),
        Err(error) => {
            let mut failure = error.into_sign_error();
            if failure.kind == FailureKind::Permanent {
                failure.message = format!("role-arn: {role}: {}", failure.message);
            }
            Err(failure)
        }
    }
}

/// What CloudTrail shows: `NAMESPACE@SERVICEACCOUNT@POD`, in the characters and the length that STS takes. One that is too
/// long loses the end of its pod's name to a hash.
fn session_name(pod: &WorkloadIdentity) -> String {
    const LONGEST: usize = 64;
    let whole = format!("{}@{}@{}", pod.namespace, pod.service_account, pod.name);
    let taken = |c: char| if c.is_ascii_alphanumeric() || "_+=,.@-".contains(c) { c } else { '_' };
    let name: String = whole.chars().map(taken).collect();
    if name.len() <= LONGEST {
        return name;
    }
    let hash = fingerprint(&[whole.as_bytes()]);
    let head = name.get(..LONGEST - 9).unwrap_or_default();
    format!("{head}-{}", hash.get(..8).unwrap_or_default())
}

/// Nothing behind these locks is left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PcaRequest, SignerSpec};
    use crate::signer::Purpose;
    use crate::signer::RequestId;
    use crate::signer::testing::NoCheckpoint;
    use crate::x509::testing::{Stopped, attributes};

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/1";
    const REGION: &str = "eu-central-1";
    const ROLE: &str = "arn:aws:iam::123456789012:role/shop-web";

    impl Callers {
        /// Callers whose calls go to this address, whatever the environment names; the driver has credentials of its own.
        pub(in crate::signer::acm_pca) async fn at(endpoint: &str) -> Self {
            let callers = Self::new(Agent::new(Vec::new()));
            let base = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(REGION))
                .http_client(callers.http.clone())
                .retry_config(RetryConfig::disabled())
                .credentials_provider(Credentials::new("AKIADRIVER", "s", None, None, "test"))
                .endpoint_url(endpoint)
                .load()
                .await;
            Self { base: OnceCell::new_with(Some(base)), ..callers }
        }
    }

    /// An address that nothing listens at.
    const NOWHERE: &str = "http://127.0.0.1:1";

    fn pod(name: &str, uid: &str) -> WorkloadIdentity {
        WorkloadIdentity {
            namespace: "shop".into(),
            name: name.into(),
            uid: uid.into(),
            service_account: "web".into(),
        }
    }

    /// The client of a pod that names a role and has no token for it.
    async fn without_token(callers: &Callers, uid: &str) -> Result<Client, Failure> {
        let mut attributes = attributes();
        attributes.signer = SignerSpec::AcmPca(PcaRequest {
            certificate_authority_arn: CA.into(),
            signing_algorithm: None,
            template_arn: None,
            caller: PcaCaller::Role(ROLE.into()),
        });
        let request = SigningRequest {
            id: &RequestId::new("csi-1"),
            identity: &pod("web-0", uid),
            tokens: &PodTokens::default(),
            spec: &attributes,
            csr_der: b"",
            checkpoint: &NoCheckpoint,
            purpose: Purpose::Publish,
            not_ready_count: 0,
        };
        let (authority, clock) = (AuthorityArn::parse(CA).unwrap(), Stopped(Timestamp::UNIX_EPOCH));
        callers.client(&request, &authority, &PcaMetrics::default(), &clock).await
    }

    #[tokio::test]
    async fn pods_whose_role_cannot_be_had_leave_nothing_behind() {
        let callers = Callers::at(NOWHERE).await;
        for number in 0..100 {
            let refused = without_token(&callers, &format!("uid-{number}")).await.unwrap_err();
            assert!(refused.to_string().contains("no token for sts.amazonaws.com"), "{refused}");
        }
        assert_eq!(lock(&callers.roles).len(), 1, "the last pod's, until the next call");
    }

    #[tokio::test]
    async fn a_slot_is_kept_while_a_call_shares_it_or_its_credentials_hold() {
        let callers = Callers::at(NOWHERE).await;
        let now = Timestamp::UNIX_EPOCH;
        let client = callers.driver(REGION).await;
        let until = |seconds: i64| {
            Some(RoleClient { client: client.clone(), expires_at: now + SignedDuration::from_secs(seconds) })
        };
        let key_of = |uid: &str| RoleKey {
            caller: PcaCaller::Role(ROLE.into()),
            region: REGION.into(),
            pod_uid: uid.into(),
            service_account: "shop/web".into(),
        };
        let put = |uid: &str, role: Option<RoleClient>| {
            let slot: RoleSlot = Arc::new(AsyncMutex::new(role));
            lock(&callers.roles).insert(key_of(uid), Arc::clone(&slot));
            slot
        };
        let _in_progress = put("asking", None);
        for (uid, role) in [("failed", None), ("valid", until(1)), ("expired", until(0))] {
            drop(put(uid, role));
        }
        drop(callers.slot(&key_of("new"), now));
        let mut kept: Vec<String> = lock(&callers.roles).keys().map(|key| key.pod_uid.clone()).collect();
        kept.sort();
        assert_eq!(kept, ["asking", "new", "valid"]);
    }

    #[test]
    fn the_session_name_tells_the_pod_within_what_sts_takes() {
        let pod = |name: &str| pod(name, "u");
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
