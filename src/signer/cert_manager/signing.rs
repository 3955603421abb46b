//! One signing: creates a request or resumes that of an earlier call, and waits until it is decided.

use super::api::{CertificateRequest, Key, Spec, State};
use super::checkpoint::RequestCheckpoint;
use super::errors::{Action, sign_error};
use super::{CertManager, gate, object};
use crate::kube::{CallError, Caller};
use crate::model::{Failure, WorkloadIdentity};
use crate::signer::{Checkpoint, SignedChain, SigningRequest};
use kube::api::{GetParams, PostParams};
use secrecy::SecretString;
use serde::Deserialize;

impl CertManager {
    pub(super) async fn sign_one(&self, request: &SigningRequest<'_>) -> Result<SignedChain, Failure> {
        self.ensure_watching();
        // One permit for all calls, so that a signing queues once. The wait for the issuer is without it.
        let permit = self.limiter.acquire(&request.identity.namespace, request.needed_by).await?;
        let checkpoint = self.checkpoint(request).await?;
        let body = object::body(request, &checkpoint.key, &self.options.node)?;
        let expected = self.expected(request, &body)?;
        let waiter = self.tracker.wait_for(checkpoint.key.clone(), expected.clone());
        let state = self.request(request, &checkpoint.key, body, &expected).await?;
        drop(permit);
        let decided = if let State::Open(_) = state { waiter.decided().await } else { state };
        outcome(request.checkpoint, checkpoint, decided)
    }

    /// The checkpoint of the request to resume, else that of a new one.
    async fn checkpoint(&self, request: &SigningRequest<'_>) -> Result<RequestCheckpoint, Failure> {
        let saved = request.checkpoint.load().as_deref().and_then(RequestCheckpoint::parse);
        let ended = match saved {
            Some(open) if !open.ended => return Ok(open),
            ended => ended,
        };
        gate::check(&self.options.gates, self.options.gate_backoff, &self.cluster, request).await?;
        // An unusable token is an error before anything is saved.
        self.token(request)?;
        let checkpoint = RequestCheckpoint { key: object::new_key(request)?, ended: false };
        request.checkpoint.save(&checkpoint.encode())?;
        // Earlier requests can be without a usable certificate: no `in_use` deletes them.
        self.delete_superseded(request.id);
        self.deletions.delete_all(ended.map(|ended| ended.key));
        Ok(checkpoint)
    }

    /// The state of the request, which is created if it has not been seen yet.
    async fn request(
        &self,
        request: &SigningRequest<'_>,
        key: &Key,
        body: Vec<u8>,
        expected: &Spec,
    ) -> Result<State, Failure> {
        if self.tracker.knows(key) {
            return self.existing(request, key, expected).await;
        }
        let token = self.token(request)?;
        let caller = token.map_or(Caller::Driver, Caller::Token);
        let create = key.collection().create(&PostParams::default(), body);
        let namespace = &request.identity.namespace;
        // Here and not with the checkpoint: a request that somebody has deleted is created again.
        self.budget.take(request, self.options.max_issuances_per_hour)?;
        match self.cluster.read::<CertificateRequest>(caller, create).await {
            Ok(created) => {
                self.tracker.server_answered();
                if token.is_none() {
                    self.username.get_or_init(|| created.spec.username.clone());
                }
                Ok(self.saw(&created))
            }
            // An earlier create was carried out, though its answer was lost or the process has ended.
            Err(CallError::Refused { reason, .. }) if reason == "AlreadyExists" => {
                self.budget.put_back(namespace);
                self.existing(request, key, expected).await
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

    /// The state of a request that an earlier call has created.
    async fn existing(
        &self,
        request: &SigningRequest<'_>,
        key: &Key,
        expected: &Spec,
    ) -> Result<State, Failure> {
        let get = key.collection().get(&key.name, &GetParams::default());
        match self.cluster.read::<CertificateRequest>(Caller::Driver, get).await {
            Ok(found) if found.metadata.deletion_timestamp.is_some() => Ok(State::Gone),
            Ok(found) if !found.spec.is_same(expected) => Ok(State::Replaced),
            Ok(found) => Ok(self.saw(&found)),
            Err(CallError::Refused { code: 404, .. }) => {
                self.tracker.lost(key);
                Ok(State::Gone)
            }
            Err(error) => {
                let failure = sign_error(&error, Action::Get, request.identity);
                self.limiter.record(&failure);
                Err(failure)
            }
        }
    }

    /// Records a request as the watch does, and returns its state.
    fn saw(&self, request: &CertificateRequest) -> State {
        self.deletions.delete_all(self.tracker.saw(request));
        request.state()
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
        let WorkloadIdentity { namespace, service_account, .. } = request.identity;
        spec.username = match self.options.token_audience {
            Some(_) => format!("system:serviceaccount:{namespace}:{service_account}"),
            None => self.username.get().cloned().unwrap_or_default(),
        };
        Ok(spec)
    }

    /// The pod's token, if requests are made with one.
    fn token<'a>(&self, request: &'a SigningRequest<'_>) -> Result<Option<&'a SecretString>, Failure> {
        let Some(audience) = &self.options.token_audience else { return Ok(None) };
        request.token(audience, "--use-token-request", self.clock.now()).map(Some)
    }
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
