//! One volume in memory. Dropping it removes its work from the queue and its credential from memory.

use super::applied::AppliedSpec;
use super::event_history::EventHistory;
use super::volume_counts::Counted;
use crate::credential::{LiveCredential, Schedule, Work};
use crate::model::{CertificateFacts, CertificateSpec, PodTokens, SignerKind, VolumeId, sha256};
use crate::sink::ServedSocket;
use crate::store::{Account, IssuedRecord, Record};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

/// One volume in this process. Only the holder of its lock changes it, except for tokens and trust bundle, which change
/// without the lock.
pub(super) struct Volume {
    pub(super) id: VolumeId,
    /// What its files are made by.
    applied: Mutex<Arc<AppliedSpec>>,
    /// What was asked for last. It is another spec than that of its files while a certificate by a changed class is asked for.
    asked: Mutex<Arc<CertificateSpec>>,
    /// When work on it is due.
    pub(super) schedule: Schedule,
    /// The channel that sinks follow.
    pub(super) live: Arc<LiveCredential>,
    /// The recent Events of its pod.
    pub(super) events: Arc<EventHistory>,
    /// What it uses of the store.
    pub(super) account: Account,
    /// What its Envoy said of a secret that it does not accept, until the next one.
    rejection: Mutex<Option<String>>,
    /// Its socket, if it asks for one.
    pub(super) socket: Mutex<Option<ServedSocket>>,
    /// Counts it for its pod and namespace.
    _counted: Counted,
    record: Mutex<Record>,
    tokens: Mutex<Arc<PodTokens>>,
    /// What its pod's author was told last of its sources.
    fault: Mutex<Option<String>>,
    is_held_back: AtomicBool,
    trusted_since: Mutex<HashMap<[u8; 32], Instant>>,
    not_ready_count: AtomicU32,
}

impl Volume {
    pub(super) fn new(
        record: Record,
        applied: Arc<AppliedSpec>,
        tokens: PodTokens,
        schedule: Schedule,
        events: Arc<EventHistory>,
        (account, counted): (Account, Counted),
    ) -> Arc<Self> {
        schedule.set_end(end(&record));
        Arc::new(Self {
            id: record.volume_id.clone(),
            asked: Mutex::new(Arc::clone(&applied.spec)),
            applied: Mutex::new(applied),
            schedule,
            live: Arc::default(),
            events,
            account,
            rejection: Mutex::default(),
            socket: Mutex::default(),
            _counted: counted,
            record: Mutex::new(record),
            tokens: Mutex::new(Arc::new(tokens)),
            fault: Mutex::default(),
            is_held_back: AtomicBool::new(false),
            trusted_since: Mutex::default(),
            not_ready_count: AtomicU32::new(0),
        })
    }

    pub(super) fn record(&self) -> Record {
        self.record.lock().clone()
    }

    /// Runs `f` on the record under its lock, without cloning it.
    pub(super) fn with_record<T>(&self, f: impl FnOnce(&Record) -> T) -> T {
        f(&self.record.lock())
    }

    pub(super) fn set_record(&self, record: Record) {
        self.schedule.set_end(end(&record));
        *self.record.lock() = record;
    }

    /// What its files are made by.
    pub(super) fn applied(&self) -> Arc<AppliedSpec> {
        Arc::clone(&self.applied.lock())
    }

    /// The spec that its files are made by.
    pub(super) fn spec(&self) -> Arc<CertificateSpec> {
        Arc::clone(&self.applied.lock().spec)
    }

    /// Sets what is asked for from now on, and returns what was asked for before.
    pub(super) fn ask(&self, spec: &Arc<CertificateSpec>) -> Arc<CertificateSpec> {
        std::mem::replace(&mut self.asked.lock(), Arc::clone(spec))
    }

    /// Whether its certificate is that signer's, or its next one is asked of it.
    pub(super) fn uses(&self, signer: SignerKind) -> bool {
        self.asked.lock().signer.kind() == signer || self.spec().signer.kind() == signer
    }

    /// What signs it, for comparisons.
    pub(super) fn authority(&self) -> String {
        let spec = self.spec();
        self.with_record(|record| spec.signer.authority(&record.pod.namespace))
    }

    /// Sets what its files are made by from now on.
    pub(super) fn set_applied(&self, applied: &Arc<AppliedSpec>) {
        let mut record = self.record.lock();
        record.class.clone_from(&applied.spec.class);
        record.signer = applied.spec.signer.kind().to_string();
        *self.applied.lock() = Arc::clone(applied);
    }

    /// A fact of the certificate in use.
    pub(super) fn fact<T>(&self, of: impl FnOnce(&CertificateFacts) -> T) -> Option<T> {
        self.with_record(|record| record.issued.as_ref().map(|issued| of(&issued.facts)))
    }

    /// The group that may read its key with this spec: the attribute `fs-group`, or else CSI's `volume_mount_group`.
    pub(super) fn group(&self, spec: &CertificateSpec) -> Option<u32> {
        spec.fs_group.or_else(|| self.with_record(|record| record.fs_group))
    }

    pub(super) fn tokens(&self) -> Arc<PodTokens> {
        self.tokens.lock().clone()
    }

    /// Keeps the fresh tokens of a republish; without any the old ones stay. Returns whether a new token lasts longer than the
    /// old one.
    pub(super) fn refresh_tokens(&self, tokens: PodTokens) -> bool {
        if tokens.is_empty() {
            return false;
        }
        let mut held = self.tokens.lock();
        let lasts_longer = tokens.outlast(&held);
        *held = Arc::new(tokens);
        lasts_longer
    }

    /// Notes whether its new certificate waits until its root is trusted.
    pub(super) fn set_held_back(&self, is_held_back: bool) {
        self.is_held_back.store(is_held_back, Ordering::Relaxed);
    }

    /// Whether its new certificate waits until its root is trusted.
    pub(super) fn is_held_back(&self) -> bool {
        self.is_held_back.load(Ordering::Relaxed)
    }

    /// Remembers which anchors are now added to its trust bundle without a new certificate, and forgets those that are removed.
    pub(super) fn remember_anchors(&self, before: &[Vec<u8>], after: &[Vec<u8>]) {
        if before == after {
            return;
        }
        let mut since = self.trusted_since.lock();
        let remembered = after.iter().filter_map(|anchor| {
            let id = sha256(&[anchor]);
            let at = if before.contains(anchor) { *since.get(&id)? } else { Instant::now() };
            Some((id, at))
        });
        *since = remembered.collect();
    }

    /// When an anchor was added to its trust bundle without a new certificate; none: not since the start.
    pub(super) fn trusted_since(&self, anchor: &[u8]) -> Option<Instant> {
        self.trusted_since.lock().get(&sha256(&[anchor])).copied()
    }

    /// Whether its sources work, with what is wrong; none if that is as when it was last asked.
    pub(super) fn changed_fault(&self) -> Option<Result<(), String>> {
        let fault = self.applied().fault();
        let mut last = self.fault.lock();
        if *last == fault {
            return None;
        }
        last.clone_from(&fault);
        Some(fault.map_or(Ok(()), Err))
    }

    /// Schedules the end of the retained anchor that ends first.
    pub(super) fn schedule_retained(&self) {
        let end = self.with_record(|record| {
            let issued = record.issued.as_ref()?;
            issued.trust.retained.iter().map(|retained| retained.until).min()
        });
        let due = self.schedule.due(Work::RefreshTrust);
        if let Some(end) = end.filter(|end| due.is_none_or(|due| *end < due)) {
            self.schedule.put(Work::RefreshTrust, end);
        }
    }

    /// What its Envoy says of the secret that it was sent; none: nothing.
    pub(super) fn set_rejection(&self, message: Option<String>) {
        *self.rejection.lock() = message;
    }

    /// What its Envoy said of a secret that it does not accept.
    pub(super) fn rejection(&self) -> Option<String> {
        self.rejection.lock().clone()
    }

    /// How many times in a row the pod was not ready.
    pub(super) fn not_ready_count(&self) -> u32 {
        self.not_ready_count.load(Ordering::Relaxed)
    }

    /// Updates the count: zero if the pod was ready, else one more.
    pub(super) fn count_ready(&self, is_ready: bool) {
        let next = if is_ready { 0 } else { self.not_ready_count().saturating_add(1) };
        self.not_ready_count.store(next, Ordering::Relaxed);
    }
}

/// When the certificate in use ends.
fn end(record: &Record) -> Option<Timestamp> {
    record.issued.as_ref().map(IssuedRecord::end)
}
