//! One volume in memory. Dropping it removes its work from the queue and its credential from memory.

use super::event_history::EventHistory;
use super::federation::Federation;
use super::volume_counts::Counted;
use crate::credential::{LiveCredential, Schedule, Work};
use crate::model::{CertificateFacts, CertificateSpec, PodTokens, TrustSource, VolumeId};
use crate::sink::ServedSocket;
use crate::store::{Account, IssuedRecord, Record};
use crate::trust::{FollowedSource, TrustBundle, VolumeCrls, joined};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// One volume in this process. Only the holder of its lock changes it, except for tokens and trust bundle, which change
/// without the lock.
pub(super) struct Volume {
    pub(super) id: VolumeId,
    /// Shared with the request for its publish.
    pub(super) spec: Arc<CertificateSpec>,
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
    /// The trust sources that it uses besides the signer.
    pub(super) trust_sources: Vec<Arc<FollowedSource>>,
    /// The other trust domains whose trust bundles it gets.
    pub(super) federation: Federation,
    /// The CRLs that it asks for.
    pub(super) crls: VolumeCrls,
    /// The trust bundle of a source other than the signer, as it was last set.
    trust: Mutex<Option<Arc<TrustBundle>>>,
    /// What its pod's author was told last of its sources.
    fault: Mutex<Option<String>>,
    is_held_back: AtomicBool,
    not_ready_count: AtomicU32,
}

impl Volume {
    pub(super) fn new(
        record: Record,
        spec: Arc<CertificateSpec>,
        tokens: PodTokens,
        schedule: Schedule,
        events: Arc<EventHistory>,
        (account, counted): (Account, Counted),
        (trust_sources, federation, crls): (Vec<Arc<FollowedSource>>, Federation, VolumeCrls),
    ) -> Arc<Self> {
        schedule.set_end(end(&record));
        Arc::new(Self {
            id: record.volume_id.clone(),
            spec,
            schedule,
            live: Arc::default(),
            events,
            account,
            rejection: Mutex::default(),
            socket: Mutex::default(),
            _counted: counted,
            record: Mutex::new(record),
            tokens: Mutex::new(Arc::new(tokens)),
            trust_sources,
            federation,
            crls,
            trust: Mutex::default(),
            fault: Mutex::default(),
            is_held_back: AtomicBool::new(false),
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

    /// A fact of the certificate in use.
    pub(super) fn fact<T>(&self, of: impl FnOnce(&CertificateFacts) -> T) -> Option<T> {
        self.with_record(|record| record.issued.as_ref().map(|issued| of(&issued.facts)))
    }

    /// The group that may read its key: the attribute `fs-group`, or else CSI's `volume_mount_group`.
    pub(super) fn group(&self) -> Option<u32> {
        self.spec.fs_group.or_else(|| self.with_record(|record| record.fs_group))
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

    /// Sets the trust bundle of every later generation. It replaces the one that the signer names.
    pub(super) fn set_trust(&self, trust: Arc<TrustBundle>) {
        *self.trust.lock() = Some(trust);
    }

    /// The trust bundle of a source other than the signer, if there is one.
    pub(super) fn trust(&self) -> Option<Arc<TrustBundle>> {
        self.trust.lock().clone()
    }

    /// Whether it trusts what its signer names.
    pub(super) fn trusts_signer(&self) -> bool {
        let sources = &self.spec.trust_sources;
        if sources.is_empty() { self.trust.lock().is_none() } else { sources.contains(&TrustSource::Signer) }
    }

    /// What its sources other than the signer name now; none if it has none. An error while one of them has never been read.
    pub(super) fn joined_sources(&self) -> Result<Option<Arc<TrustBundle>>, String> {
        if self.trust_sources.is_empty() { Ok(self.trust()) } else { joined(&self.trust_sources).map(Some) }
    }

    /// As [`Self::joined_sources`], as it was last set.
    pub(super) fn present_sources(&self) -> Result<Option<Arc<TrustBundle>>, ()> {
        match self.trust() {
            None if !self.trust_sources.is_empty() => Err(()),
            trust => Ok(trust),
        }
    }

    /// Notes whether its new certificate waits until its root is trusted.
    pub(super) fn set_held_back(&self, is_held_back: bool) {
        self.is_held_back.store(is_held_back, Ordering::Relaxed);
    }

    /// Whether its new certificate waits until its root is trusted.
    pub(super) fn is_held_back(&self) -> bool {
        self.is_held_back.load(Ordering::Relaxed)
    }

    /// Whether its sources work, with what is wrong; none if that is as when it was last asked.
    pub(super) fn changed_fault(&self) -> Option<Result<(), String>> {
        let fault =
            self.trust_sources.iter().chain(self.federation.sources()).find_map(|source| source.fault());
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

    /// Sets the trust bundle to that of its sources. Returns whether it is another one than before. While a source has never had
    /// anchors, nothing changes.
    pub(super) fn refresh_sources(&self) -> bool {
        if self.trust_sources.is_empty() {
            return false;
        }
        let Ok(sources) = joined(&self.trust_sources) else { return false };
        let mut trust = self.trust.lock();
        let is_new = trust.as_ref() != Some(&sources);
        if is_new {
            *trust = Some(sources);
        }
        is_new
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
