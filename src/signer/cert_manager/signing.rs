//! One signing: creates a request or resumes that of an earlier call, and waits until it is decided.

use super::api::{CertificateRequest, Expected, Spec, State};
use super::checkpoint::RequestCheckpoint;
use super::errors::{Action, sign_error};
use super::tracker::Seen;
use super::{CertManager, Following, gate, object};
use crate::kube::{CallError, Caller, TextDigest};
use crate::model::{Failure, WorkloadIdentity};
use crate::signer::{Checkpoint, SignedChain, SigningRequest};
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

impl CertManager {
    pub(super) async fn sign_one(&self, request: &SigningRequest<'_>) -> Result<SignedChain, Failure> {
        self.ensure_watching();
        // One permit for all calls, so that a signing queues once. The wait for the issuer is without it.
        let permit = self.limiter.acquire(&request.identity.namespace, request.needed_by).await?;
        let (mut checkpoint, advice) = self.checkpoint(request).await?;
        // By the label the watch of a node finds its requests. A polled request is nobody else's.
        let node = Some(self.options.node.as_str()).filter(|_| self.options.following == Following::Watch);
        let body = object::body(request, &checkpoint.key, node)?;
        let spec = self.expected(request, &body)?;
        let key = checkpoint.key.clone();
        let ended = if self.tracker.knows(&key) {
            let waiter = self.tracker.wait_for(key, Expected { spec, uid: checkpoint.uid.clone() });
            (self.resume(request, &mut checkpoint).await?, waiter)
        } else {
            // Without the uid: if the object was deleted, its successor has another one.
            let waiter = self.tracker.wait_for(key, Expected { spec, uid: None });
            (self.create(request, &mut checkpoint, body).await?, waiter)
        };
        drop(permit);
        // What the calls have found comes before what the watch has shown meanwhile.
        let decided = match ended {
            (Some(ended), _) => ended,
            (None, waiter) => self.decided(request, &mut checkpoint, waiter).await?,
        };
        let chain = outcome(request.checkpoint, checkpoint, decided)?;
        Ok(SignedChain { warning: advice, ..chain })
    }

    /// The checkpoint of the request to resume, else that of a new one, and what the pod's author should know.
    async fn checkpoint(
        &self,
        request: &SigningRequest<'_>,
    ) -> Result<(RequestCheckpoint, Option<String>), Failure> {
        let saved = request.checkpoint.load().as_deref().and_then(RequestCheckpoint::parse);
        let advice = gate::check(&self.options.gates, self.options.gate_backoff, &self.cluster, request);
        let ended = match saved {
            // The gates were open when the request was made. The pod is read for the advice alone.
            Some(open) if !open.ended => return Ok((open, advice.await.unwrap_or_default())),
            ended => ended,
        };
        let advice = advice.await?;
        // An unusable token is an error before anything is saved.
        self.token(request)?;
        let checkpoint = RequestCheckpoint { key: object::new_key(request)?, uid: None, ended: false };
        request.checkpoint.save(&checkpoint.encode())?;
        // Earlier requests can be without a usable certificate: no `in_use` deletes them.
        self.delete_superseded(request.id);
        self.deletions.delete_all(ended.map(|ended| ended.key));
        Ok((checkpoint, advice))
    }

    /// Creates the request, or resumes it if an earlier call has created it. Returns a state if there is nothing to wait for.
    async fn create(
        &self,
        request: &SigningRequest<'_>,
        checkpoint: &mut RequestCheckpoint,
        body: Vec<u8>,
    ) -> Result<Option<State>, Failure> {
        let token = self.token(request)?;
        let caller = token.map_or(Caller::Driver, Caller::Token);
        let create = checkpoint.key.collection().create(&PostParams::default(), body);
        let namespace = &request.identity.namespace;
        // Here and not with the checkpoint: a request that somebody has deleted is created again.
        self.budget.take(request, self.options.max_issuances_per_hour)?;
        match self.cluster.read::<CertificateRequest>(caller, create).await {
            Ok(created) => {
                self.tracker.server_answered();
                if token.is_none() && !created.spec.username.is_empty() {
                    self.username.get_or_init(|| created.spec.username);
                }
                let ended = self.saw(&created);
                save_uid(request.checkpoint, checkpoint, &created)?;
                Ok(ended)
            }
            // An earlier create was carried out, though its answer was lost or the process has ended.
            Err(CallError::Refused { reason, .. }) if reason == "AlreadyExists" => {
                self.budget.put_back(namespace);
                self.resume(request, checkpoint).await
            }
            Err(error) => {
                // Without an answer it may have been created.
                if matches!(error, CallError::Refused { .. }) {
                    self.budget.put_back(namespace);
                }
                let failure =
                    sign_error(&error, Action::Create { as_pod: token.is_some() }, request.identity);
                // A Retry-After for a pod's own account does not concern other pods.
                if token.is_none() {
                    self.limiter.record(&failure);
                }
                Err(failure)
            }
        }
    }

    /// Reads the request that an earlier call has created. Returns a state if there is nothing to wait for.
    pub(super) async fn resume(
        &self,
        request: &SigningRequest<'_>,
        checkpoint: &mut RequestCheckpoint,
    ) -> Result<Option<State>, Failure> {
        let key = &checkpoint.key;
        let get = key.collection().get(&key.name, &GetParams::default());
        match self.cluster.read::<CertificateRequest>(Caller::Driver, get).await {
            Ok(found) if found.metadata.deletion_timestamp.is_some() => Ok(Some(State::Gone)),
            Ok(found) if !self.is_own(request, checkpoint, &found).await? => Ok(Some(State::Replaced)),
            Ok(found) => {
                let ended = self.saw(&found);
                if checkpoint.uid.is_none() {
                    save_uid(request.checkpoint, checkpoint, &found)?;
                }
                Ok(ended)
            }
            Err(CallError::Refused { code: 404, .. }) => {
                self.tracker.lost(key);
                Ok(Some(State::Gone))
            }
            Err(error) => {
                let failure = sign_error(&error, Action::Get, request.identity);
                self.limiter.record(&failure);
                Err(failure)
            }
        }
    }

    /// Records a request as the watch does. Returns a state if it is another object than the signing's own.
    fn saw(&self, request: &CertificateRequest) -> Option<State> {
        let Seen { unwanted, is_other } = self.tracker.saw(request);
        self.deletions.delete_all(unwanted);
        if self.options.following == Following::Poll {
            self.report_polled(request);
        }
        is_other.then_some(State::Replaced)
    }

    /// Whether a request is the one that an earlier call has created: it has the same uid. As long as the uid is not known,
    /// the creator must be the same, if the server says who it is. Whoever sees a request can delete it, and make another one
    /// of its name.
    async fn is_own(
        &self,
        request: &SigningRequest<'_>,
        checkpoint: &RequestCheckpoint,
        found: &CertificateRequest,
    ) -> Result<bool, Failure> {
        if checkpoint.uid.is_some() {
            return Ok(checkpoint.uid == found.metadata.uid);
        }
        let creator = found.spec.username;
        if creator.is_empty() {
            return Ok(true);
        }
        let own = match self.options.token_audience {
            Some(_) => pods_username(request.identity),
            None => match self.username.get() {
                Some(own) => *own,
                None => self.review(request.identity).await?,
            },
        };
        Ok(creator == own)
    }

    /// The driver's own account as the server names it; empty before Kubernetes 1.28, which does not tell it.
    async fn review(&self, identity: &WorkloadIdentity) -> Result<TextDigest, Failure> {
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let reviews = Request::new("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        let create = reviews.create(&PostParams::default(), review.to_string().into_bytes());
        match self.cluster.read::<SelfSubjectReview>(Caller::Driver, create).await {
            Ok(review) => Ok(*self.username.get_or_init(|| review.status.user_info.username)),
            Err(CallError::Refused { code: 403 | 404, .. }) => Ok(TextDigest::default()),
            Err(error) => Err(sign_error(&error, Action::Review, identity)),
        }
    }

    /// What the server should show for this request. Its creator is the pod's account, or the driver's, whose name is known
    /// after the first create.
    fn expected(&self, request: &SigningRequest<'_>, body: &[u8]) -> Result<Spec, Failure> {
        #[derive(Deserialize)]
        struct Body {
            spec: Spec,
        }
        let Body { mut spec } = serde_json::from_slice(body)
            .map_err(|error| Failure::transient(format!("the CertificateRequest cannot be read: {error}")))?;
        spec.username = match self.options.token_audience {
            Some(_) => pods_username(request.identity),
            None => self.username.get().copied().unwrap_or_default(),
        };
        Ok(spec)
    }

    /// The pod's token, if requests are made with one.
    fn token<'a>(&self, request: &'a SigningRequest<'_>) -> Result<Option<&'a SecretString>, Failure> {
        let Some(audience) = &self.options.token_audience else { return Ok(None) };
        request.token(audience, "--use-token-request", self.clock.now()).map(Some)
    }
}

/// What is read of a `SelfSubjectReview`.
#[derive(Deserialize)]
struct SelfSubjectReview {
    status: ReviewStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewStatus {
    user_info: UserInfo,
}

#[derive(Deserialize)]
struct UserInfo {
    username: TextDigest,
}

/// The pod's service account, as the server names it.
fn pods_username(WorkloadIdentity { namespace, service_account, .. }: &WorkloadIdentity) -> TextDigest {
    TextDigest::of(&format!("system:serviceaccount:{namespace}:{service_account}"))
}

/// Saves which object is the signing's own: a later call adopts no other one.
fn save_uid(
    store: &dyn Checkpoint,
    checkpoint: &mut RequestCheckpoint,
    object: &CertificateRequest,
) -> Result<(), Failure> {
    checkpoint.uid.clone_from(&object.metadata.uid);
    if checkpoint.uid.is_some() { store.save(&checkpoint.encode()) } else { Ok(()) }
}

/// The result of a decided request. A final request without a certificate is marked as ended in the checkpoint.
fn outcome(
    store: &dyn Checkpoint,
    checkpoint: RequestCheckpoint,
    state: State,
) -> Result<SignedChain, Failure> {
    let message = |what: &str| format!("CertificateRequest {} {what}", checkpoint.key);
    let failure = match state {
        State::Issued { chain, ca } => {
            return Ok(SignedChain { chain, ca, warning: None, template_usages: &[] });
        }
        State::Gone | State::Open(_) => {
            return Err(Failure::transient(message("was deleted before it was signed")));
        }
        State::Replaced => {
            Failure::transient(message("was replaced by another one of that name, which is not used"))
        }
        State::Failed(reason) => Failure::transient(message(&reason)),
        State::Refused(reason) => Failure::refused(message(&reason)),
    };
    store.save(&RequestCheckpoint { ended: true, ..checkpoint }.encode())?;
    Err(failure)
}
