//! cert-manager: a CertificateRequest per issuance, and one watch for all of them.
//!
//! ```text
//! sign: gates -> note saved -> a place on the board -> create -> ... the watch tells the board ... -> chain
//! ```
//!
//! The name of a request is chosen before it is created and saved as the note, so whatever is cut off where - the
//! publish, the process, the answer to the create - the next call finds the same request and takes it up. A request that
//! failed is final in cert-manager: the next attempt makes another one with the same key and deletes the failed one. A
//! refused one (denied, invalid) stands for ten minutes, so that retries neither pile up requests nor create and delete
//! in a loop; after that one more is made, in case the policy was mended meanwhile.

mod api;
mod board;
mod deletion;
mod errors;
mod gate;
mod note;
mod object;
mod pause;
mod signing;
#[cfg(test)]
mod tests;
mod watching;

pub use gate::{Gate, GateBackoff, IpFamily};

use super::{SignError, SignedChain, SignedVolume, Signer, SigningRequest};
use crate::attributes::{Attributes, SignerKind, VolumeId};
use crate::clock::Clock;
use crate::kube::{ApiObserver, Cluster};
use board::Board;
use deletion::Deletions;
use futures_util::future::BoxFuture;
use gate::Gates;
use note::Note;
use pause::Pause;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What an operator can choose.
#[derive(Clone, Debug, Default)]
pub struct CertManagerOptions {
    /// This node's name.
    pub node: String,
    /// How many requests a volume may have; at least one.
    pub keep_requests: usize,
    /// The audience of the pods' tokens that requests are made with; none: they are made as the driver.
    pub token_audience: Option<String>,
    /// What must hold of a pod before a request is made for it.
    pub gates: Vec<Gate>,
    /// When a pod that was not ready is looked at again.
    pub gate_backoff: GateBackoff,
}

/// Signs with cert-manager's CertificateRequests.
pub struct CertManager {
    cluster: Cluster,
    clock: Arc<dyn Clock>,
    node_label: String,
    keep_requests: usize,
    token_audience: Option<String>,
    gates: Gates,
    board: Board,
    deletions: Deletions,
    calls: Semaphore,
    pause: Pause,
    /// Until it is begun.
    watch: Mutex<Option<BoxFuture<'static, ()>>>,
}

/// Creates and gets at a time: enough to keep an API server busy, few enough not to be a stampede.
const CALLS: usize = 16;

impl CertManager {
    /// Prepares the signer. Its watch begins with the first request and goes on until `shutdown`: a node whose pods use
    /// other signers needs no cert-manager.
    pub fn new(
        cluster: Cluster,
        options: CertManagerOptions,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn ApiObserver>,
        shutdown: CancellationToken,
    ) -> Self {
        let board = Board::default();
        let deletions = Deletions::start(cluster.clone(), board.clone());
        let node_label = object::label_value(&options.node);
        let watch = watching::watch(
            cluster.clone(),
            node_label.clone(),
            board.clone(),
            deletions.clone(),
            observer,
            shutdown,
        );
        Self {
            cluster,
            clock,
            node_label,
            keep_requests: options.keep_requests.max(1),
            token_audience: options.token_audience,
            gates: Gates::new(options.gates, options.gate_backoff),
            board,
            deletions,
            calls: Semaphore::new(CALLS),
            pause: Pause::default(),
            watch: Mutex::new(Some(Box::pin(watch))),
        }
    }

    fn ensure_watching(&self) {
        if let Some(watch) = self.watch.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tokio::spawn(watch);
        }
    }
}

impl Signer for CertManager {
    fn kind(&self) -> SignerKind {
        SignerKind::CertManager
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn sign<'a>(&'a self, request: &'a SigningRequest<'a>) -> BoxFuture<'a, Result<SignedChain, SignError>> {
        Box::pin(self.sign_one(request))
    }

    fn needs_token(&self, _attributes: &Attributes) -> bool {
        self.token_audience.is_some()
    }

    fn describe(&self, note: &str) -> String {
        let Some(note) = Note::parse(note) else { return note.to_owned() };
        let key = note.key();
        format!("CertificateRequest {key}: {}", self.board.words(&key))
    }

    fn answered(&self) -> BoxFuture<'_, VolumeId> {
        Box::pin(self.board.unheard())
    }

    fn delivered<'a>(&'a self, volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        self.board.delivered(volume.id);
        for key in self.board.older(volume.id, self.keep_requests) {
            self.deletions.add(key);
        }
        Box::pin(async {})
    }

    fn removed<'a>(&'a self, volume: &'a SignedVolume<'a>) -> BoxFuture<'a, ()> {
        self.ensure_watching();
        self.gates.forget(volume.id);
        for key in self.board.forget(volume.id) {
            self.deletions.add(key);
        }
        Box::pin(async {})
    }
}
