//! Clients of AWS: with the driver's own credentials, or with those of a pod.
//!
//! All clients share one pool of connections. Credentials are held in memory only.

use super::MAX_CACHED;
use super::answers::LimitedAnswers;
use super::metrics::PcaMetrics;
use super::pod_identity::Agent;
use super::sts;
use crate::model::{Failure, FailureKind, PcaCaller, PcaRequest};
use crate::platform::{BoundedMap, Clock};
use crate::signer::SigningRequest;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_acmpca::Client;
use aws_sdk_acmpca::config::{SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

/// Credentials that expire within this time are replaced before use.
const REPLACE_BEFORE_END: SignedDuration = SignedDuration::from_mins(5);
/// If they cannot be replaced, they are used until this time before their end.
const UNUSABLE_BEFORE_END: SignedDuration = SignedDuration::from_secs(30);

/// More Regions than AWS has.
const MAX_REGIONS: usize = 64;

/// Clients by Region and caller.
pub(crate) struct Clients {
    http: SharedHttpClient,
    base: OnceCell<SdkConfig>,
    agent: Agent,
    drivers: Mutex<BoundedMap<String, Client>>,
    roles: Mutex<BoundedMap<RoleKey, RoleSlot>>,
    /// Whether the process's own credentials are those of the pod.
    is_in_pod: bool,
}

/// A role of one pod, so that CloudTrail shows a session for each pod. It contains no token.
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

fn client_with(config: &SdkConfig) -> Client {
    Client::from_conf(aws_sdk_acmpca::config::Builder::from(config).interceptor(LimitedAnswers).build())
}

impl Clients {
    /// Without any client yet. `agent` is for EKS Pod Identity.
    pub(crate) fn new(agent: Agent, is_in_pod: bool) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        let drivers = Mutex::new(BoundedMap::new(MAX_REGIONS));
        let roles = Mutex::new(BoundedMap::new(MAX_CACHED));
        Self { http, base: OnceCell::new(), agent, drivers, roles, is_in_pod }
    }

    /// Whether requests of this caller are made with a token of the pod, and not with this process's own credentials.
    pub(crate) fn needs_token(&self, caller: &PcaCaller) -> bool {
        !self.is_in_pod && *caller != PcaCaller::Driver
    }

    /// The client for a request.
    pub(crate) async fn client(
        &self,
        request: &SigningRequest<'_>,
        pca: &PcaRequest,
        metrics: &PcaMetrics,
        clock: &dyn Clock,
    ) -> Result<Client, Failure> {
        let region = pca.certificate_authority_arn.region();
        if !self.needs_token(&pca.caller) {
            return Ok(self.driver(region).await);
        }
        let slot = self.slot(key(request, pca), clock.now());
        let mut slot = slot.lock().await;
        let now = clock.now();
        let kept = slot.as_ref().map(|kept| (kept.client.clone(), kept.expires_at.duration_since(now)));
        if let Some((client, left)) = &kept
            && *left > REPLACE_BEFORE_END
        {
            return Ok(client.clone());
        }
        let config = self.config(region).await;
        let given = match &pca.caller {
            PcaCaller::Role(role) => sts::assume(&config, role, request, now, metrics).await,
            PcaCaller::PodIdentity | PcaCaller::Driver => self.agent.credentials(request, now, metrics).await,
        };
        let credentials = match (given, kept) {
            (Ok(credentials), _) => credentials,
            (Err(error), Some((client, left)))
                if left > UNUSABLE_BEFORE_END && error.kind != FailureKind::Permanent =>
            {
                let seconds_left = left.as_secs();
                tracing::warn!(%error, seconds_left, "using older credentials of a pod, because there are no new ones");
                return Ok(client);
            }
            (Err(error), _) => return Err(error),
        };
        let expires_at = credentials.expiry().and_then(|at| Timestamp::try_from(at).ok()).unwrap_or(now);
        let provider = SharedCredentialsProvider::new(credentials);
        let client = client_with(&config.into_builder().credentials_provider(provider).build());
        *slot = Some(RoleClient { client: client.clone(), expires_at });
        Ok(client)
    }

    /// The client with the driver's own credentials.
    pub(crate) async fn driver(&self, region: &str) -> Client {
        let region = region.to_owned();
        if let Some(client) = self.drivers.lock().get(&region) {
            return client.clone();
        }
        let client = client_with(&self.config(&region).await);
        self.drivers.lock().get_or_insert_with(region, || client).clone()
    }

    /// Forgets a pod's credentials, because AWS does not accept them any more.
    pub(crate) fn forget(&self, request: &SigningRequest<'_>, pca: &PcaRequest) {
        self.roles.lock().remove(&key(request, pca));
    }

    /// The configuration of the default chain, for the Region of the CA, whatever the environment says. Endpoints may come
    /// from the environment (`AWS_ENDPOINT_URL_ACM_PCA` and others).
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
                    // Every call counts against the quotas, so the rate limited client retries, not the SDK.
                    .retry_config(RetryConfig::disabled())
                    .timeout_config(timeouts)
                    .load()
                    .await
            })
            .await;
        base.to_builder().region(Region::new(region.to_owned())).build()
    }

    /// The slot of a caller. Removes the slots that no call uses and that hold no valid credentials.
    fn slot(&self, key: RoleKey, now: Timestamp) -> RoleSlot {
        let mut slots = self.roles.lock();
        slots.retain(|_, slot| {
            // Slots are shared under this lock only, so an unshared slot stays unshared here.
            let Some(slot) = Arc::get_mut(slot) else { return true };
            slot.get_mut().as_ref().is_some_and(|role| role.expires_at > now)
        });
        Arc::clone(slots.get_or_insert_with(key, RoleSlot::default))
    }
}

fn key(request: &SigningRequest<'_>, pca: &PcaRequest) -> RoleKey {
    RoleKey {
        caller: pca.caller.clone(),
        region: pca.certificate_authority_arn.region().to_owned(),
        pod_uid: request.identity.uid.clone(),
        service_account: request.identity.account(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Arn, PodTokens, SignerSpec, WorkloadIdentity};
    use crate::signer::RequestId;
    use crate::signer::testing::NoCheckpoint;
    use crate::x509::testing::{StoppedClock, attributes, pod};
    use aws_sdk_acmpca::config::Credentials;

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/1";
    const REGION: &str = "eu-central-1";
    const ROLE: &str = "arn:aws:iam::123456789012:role/shop-web";

    impl Clients {
        /// Clients that call this address whatever the environment says. The driver has credentials of its own.
        pub(in crate::signer::acm_pca) async fn at(endpoint: &str) -> Self {
            let clients = Self::new(Agent::new(Vec::new()), false);
            let base = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(REGION))
                .http_client(clients.http.clone())
                .retry_config(RetryConfig::disabled())
                .credentials_provider(Credentials::new("AKIADRIVER", "s", None, None, "test"))
                .endpoint_url(endpoint)
                .load()
                .await;
            Self { base: OnceCell::new_with(Some(base)), ..clients }
        }
    }

    /// An address without a listener.
    const NOWHERE: &str = "http://127.0.0.1:1";

    /// The client of a pod that has a role but no token for it.
    async fn without_token(clients: &Clients, uid: &str) -> Result<Client, Failure> {
        let pod = WorkloadIdentity { uid: uid.into(), ..pod() };
        let mut attributes = attributes();
        attributes.signer = SignerSpec::AcmPca(PcaRequest {
            certificate_authority_arn: Arn::parse(CA).unwrap(),
            signing_algorithm: None,
            template_arn: None,
            caller: PcaCaller::Role(ROLE.into()),
        });
        let request = SigningRequest {
            id: &RequestId::new("csi-1"),
            identity: &pod,
            tokens: &PodTokens::default(),
            spec: &attributes,
            csr_der: b"",
            checkpoint: &NoCheckpoint,
            needed_by: jiff::Timestamp::MAX,
            replaces_certificate: false,
            not_ready_count: 0,
        };
        let (metrics, clock) = (PcaMetrics::default(), StoppedClock(Timestamp::UNIX_EPOCH));
        clients.client(&request, attributes.signer.acm_pca().unwrap(), &metrics, &clock).await
    }

    #[tokio::test]
    async fn failed_role_credentials_leave_nothing_in_memory() {
        let clients = Clients::at(NOWHERE).await;
        for number in 0..100 {
            let refused = without_token(&clients, &format!("uid-{number}")).await.unwrap_err();
            assert!(refused.to_string().contains("no token for sts.amazonaws.com"), "{refused}");
        }
        assert_eq!(clients.roles.lock().keys().len(), 1, "the slot of the last pod, until the next call");
    }

    #[tokio::test]
    async fn a_slot_is_kept_while_a_call_uses_it_or_its_credentials_are_valid() {
        let clients = Clients::at(NOWHERE).await;
        let now = Timestamp::UNIX_EPOCH;
        let client = clients.driver(REGION).await;
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
            clients.roles.lock().insert(key_of(uid), Arc::clone(&slot));
            slot
        };
        let _in_use = put("in-use", None);
        for (uid, role) in [("failed", None), ("valid", until(1)), ("expired", until(0))] {
            drop(put(uid, role));
        }
        drop(clients.slot(key_of("new"), now));
        let mut kept: Vec<String> = clients.roles.lock().keys().map(|key| key.pod_uid.clone()).collect();
        kept.sort();
        assert_eq!(kept, ["in-use", "new", "valid"]);
    }

    #[tokio::test]
    async fn invented_regions_cost_no_memory_without_end() {
        let clients = Clients::at(NOWHERE).await;
        let client = clients.driver(REGION).await;
        for number in 0..3 * MAX_CACHED {
            let region = format!("invented-{number}");
            clients.driver(&region).await;
            // EKS Pod Identity returns the same credentials for each Region.
            let caller = PcaCaller::PodIdentity;
            let (pod_uid, service_account) = ("uid-1".to_owned(), "shop/web".to_owned());
            let slot =
                clients.slot(RoleKey { caller, region, pod_uid, service_account }, Timestamp::UNIX_EPOCH);
            *slot.lock().await = Some(RoleClient { client: client.clone(), expires_at: Timestamp::MAX });
        }
        assert_eq!(clients.drivers.lock().keys().len(), MAX_REGIONS);
        assert_eq!(clients.roles.lock().keys().len(), MAX_CACHED);
    }
}
