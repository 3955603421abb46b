//! One signing: the request is made, or the one of an earlier call taken up, and waited for.

use super::api::{CertificateRequest, Key, State};
use super::errors::{Action, sign_error};
use super::note::{Ended, Note};
use super::{CertManager, gate, object};
use crate::kube::{CallError, Caller};
use crate::signer::{Progress, SignError, SignedChain, SigningRequest};
use kube::Resource;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use secrecy::SecretString;
use tokio::sync::SemaphorePermit;

impl CertManager {
    pub(super) async fn sign_one(&self, request: &SigningRequest<'_>) -> Result<SignedChain, SignError> {
        self.ensure_watching();
        self.board.expect(request.volume);
        let note = self.take_up(request).await?;
        let key = note.key();
        let mut waiter = self.board.wait_for(key.clone());
        match self.request(request, &note).await? {
            State::Open(_) => {}
            decided => return self.end(request.progress, &note, decided),
        }
        let decided = waiter.decided().await;
        self.end(request.progress, &note, decided)
    }

    /// The note of the request to make or to take up.
    async fn take_up(&self, request: &SigningRequest<'_>) -> Result<Note, SignError> {
        let earlier = request.progress.load().as_deref().and_then(Note::parse);
        if let Some(note) = &earlier {
            if note.ended.is_none() {
                return Ok(note.clone());
            }
            if let Some((until, reason)) = note.refusal(self.clock.now()) {
                let until = until.strftime("%H:%M:%SZ");
                return Err(SignError::Permanent {
                    reason: format!("{reason}; certlet asks again after {until}"),
                });
            }
        }
        let ready = {
            let _turn = self.turn().await?;
            self.gates.pass(&self.cluster, request.volume, request.pod).await
        };
        if let Err(not_ready) = ready.map_err(|error| sign_error(&error, Action::ReadPod, request.pod))? {
            let gate::NotReady { reason, look_again_in } = not_ready;
            return Err(SignError::NotReady { reason, retry_after: look_again_in });
        }
        // A token that cannot be used is better found out before there is a note.
        self.token(request)?;
        let note = Note::open(&object::new_key(request)?);
        request.progress.save(&note.encode())?;
        // Those that led to nothing, which no delivery will clear away.
        for key in self.board.older(request.volume, self.keep_requests) {
            self.deletions.add(key);
        }
        if let Some(ended) = earlier {
            self.deletions.add(ended.key());
        }
        Ok(note)
    }

    /// One of the calls that are made at a time, once the API server takes some.
    async fn turn(&self) -> Result<Option<SemaphorePermit<'_>>, SignError> {
        loop {
            self.pause.over().await?;
            let turn = self.calls.acquire().await.ok();
            if self.pause.left().is_zero() {
                return Ok(turn);
            }
        }
    }

    /// The request that the note names, made if it is not there.
    async fn request(&self, request: &SigningRequest<'_>, note: &Note) -> Result<State, SignError> {
        let _turn = self.turn().await?;
        let key = note.key();
        if self.board.knows(&key)
            && let Some(state) = self.existing(request, &key).await?
        {
            return Ok(state);
        }
        let token = self.token(request)?;
        let caller = token.map_or(Caller::Driver, Caller::Token);
        let requests = Request::new(CertificateRequest::url_path(&(), Some(&key.namespace)));
        let body = object::body(request, &key, &self.node_label);
        let create = requests.create(&PostParams::default(), body);
        match self.cluster.call(caller, create).await {
            Ok(answer) => {
                self.board.note_answer();
                self.read(&answer)
            }
            // The answer to an earlier create was lost, or the process was: it was made all the same.
            Err(error) if error.reason() == "AlreadyExists" => {
                self.existing(request, &key).await?.ok_or_else(|| SignError::Transient {
                    reason: format!("CertificateRequest {key} is being deleted"),
                })
            }
            Err(error) => {
                let error = sign_error(&error, Action::Create { as_pod: token.is_some() }, request.pod);
                // What a pod's own account is told is not meant for the others.
                if token.is_none() {
                    self.pause.note(&error);
                }
                Err(error)
            }
        }
    }

    /// The request of that name, if it exists.
    async fn existing(&self, request: &SigningRequest<'_>, key: &Key) -> Result<Option<State>, SignError> {
        let requests = Request::new(CertificateRequest::url_path(&(), Some(&key.namespace)));
        let answer =
            match self.cluster.call(Caller::Driver, requests.get(&key.name, &GetParams::default())).await {
                Ok(answer) => answer,
                Err(error) if error.code() == Some(404) => {
                    self.board.lost(key);
                    return Ok(None);
                }
                Err(error) => {
                    let error = sign_error(&error, Action::Get, request.pod);
                    self.pause.note(&error);
                    return Err(error);
                }
            };
        let found: CertificateRequest = parse(&answer)?;
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        if found.spec.request != object::encoded_request(request.csr_der) {
            return Err(SignError::Permanent {
                reason: format!("CertificateRequest {key} exists and is not ours; delete it"),
            });
        }
        self.read(&answer).map(Some)
    }

    /// Puts an answer on the board, as the watch will.
    fn read(&self, answer: &[u8]) -> Result<State, SignError> {
        let request: CertificateRequest = parse(answer)?;
        if let Some(unwanted) = self.board.saw(&request) {
            self.deletions.add(unwanted);
        }
        Ok(request.state())
    }

    /// The pod's token, where requests are made with one.
    fn token<'a>(&self, request: &'a SigningRequest<'_>) -> Result<Option<&'a SecretString>, SignError> {
        let Some(audience) = &self.token_audience else { return Ok(None) };
        let named = if audience.is_empty() { "the API server".to_owned() } else { format!("{audience:?}") };
        let Some(token) = request.tokens.audience(audience) else {
            // After a restart it is there again with the kubelet's next call.
            return Err(SignError::Transient {
                reason: format!(
                    "the kubelet has sent no service account token for audience {named}; --use-token-request needs \
                     tokenRequests with that audience and requiresRepublish: true in the CSIDriver"
                ),
            });
        };
        if token.expires_at <= self.clock.now() {
            return Err(SignError::Transient {
                reason: format!(
                    "the pod's service account token for audience {named} expired at {}; the kubelet's next republish \
                     brings a fresh one",
                    token.expires_at
                ),
            });
        }
        Ok(Some(&token.token))
    }

    /// What a decided request comes to.
    fn end(&self, progress: &dyn Progress, note: &Note, state: State) -> Result<SignedChain, SignError> {
        let key = note.key();
        match state {
            State::Issued { chain, ca } => Ok(SignedChain { chain, ca, remark: None }),
            State::Failed(words) => {
                progress.save(&note.ended(Ended::Failed).encode())?;
                Err(SignError::Transient { reason: format!("CertificateRequest {key} {words}") })
            }
            State::Refused(words) => {
                let reason = format!("CertificateRequest {key} {words}");
                let refused = Ended::Refused { at: self.clock.now(), reason: reason.clone() };
                progress.save(&note.ended(refused).encode())?;
                Err(SignError::Permanent { reason })
            }
            State::Gone | State::Open(_) => Err(SignError::Transient {
                reason: format!("CertificateRequest {key} was deleted before it was signed"),
            }),
        }
    }
}

fn parse(answer: &[u8]) -> Result<CertificateRequest, SignError> {
    serde_json::from_slice(answer).map_err(|error| SignError::Transient {
        reason: CallError::Unreadable(error.to_string()).to_string(),
    })
}
