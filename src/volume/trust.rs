//! The trust bundles of volumes: composed of what sources and signers name, handed over without an issuance when they change.

use super::applied::AppliedSpec;
use super::context::Context;
use super::volume::Volume;
use crate::attributes::TrustDefaults;
use crate::credential::{CATCH_UP, Credential, Current, Obtained, Work, offset_within};
use crate::model::{Failure, FailureKind, TrustSource, WorkloadIdentity};
use crate::platform::until;
use crate::store::{IssuedRecord, LeafRoot, TrustRecord};
use crate::trust::{Composed, Named, Overlap, TrustBundle, anchor_id, compose, was_named_by_signer};
use crate::x509::{self, Lead};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// The time in which a trust bundle is handed over to one volume, when many volumes get one at once.
const TRUST_REFRESH: Duration = Duration::from_millis(8);
/// The time in which all volumes get it.
const MAX_TRUST_WINDOW: Duration = Duration::from_secs(10);
/// The shortest time between two times that changes are handed over.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// The time from a root's arrival in a volume's trust bundle to the first leaf under it, if the last leaf can be used meanwhile: other
/// nodes and the kubelet's copies of a ConfigMap need up to this long to have the root too.
const SETTLE: Duration = Duration::from_mins(2);
/// Maximum number of sources that the pods of one namespace choose on this node, besides those that the operator lists. Each is a watch.
const MAX_CHOSEN_SOURCES: usize = 16;

/// A certificate with the trust bundle that it is handed over with.
pub(super) struct Anchored {
    pub(super) trust: Arc<TrustBundle>,
    /// What the sources named that it is composed of; none: the volume has none, or they have not been read.
    pub(super) sources: Option<Arc<TrustBundle>>,
    pub(super) record: TrustRecord,
    /// What the pod's author should know.
    pub(super) warning: Option<String>,
}

impl Context {
    /// Hands over the trust bundles of sources that have changed, until shutdown. Many volumes get them one after the other.
    pub(super) async fn follow_trust(&self) {
        while self.shutdown.run_until_cancelled(self.trust.changed()).await.is_some() {
            let volumes = self.registry.all();
            // Both, also if the first has changed: each compares with its last time.
            let pause = hand_over(&volumes, |volume| {
                let applied = volume.applied();
                applied.refresh_sources() | applied.federation.has_changed(&volume.id)
            });
            for volume in &volumes {
                self.reporter.trust_sources(volume);
            }
            let _ended = self.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// Refuses a volume whose namespace follows too many sources of its own choice on this node.
    pub(super) fn admit_sources(
        &self,
        sources: &[TrustSource],
        pod: &WorkloadIdentity,
    ) -> Result<(), Failure> {
        let defaults = &self.defaults.trust;
        if chosen(sources, defaults).next().is_none() {
            return Ok(());
        }
        let volumes = self.registry.all();
        let of_namespace: Vec<_> = volumes
            .iter()
            .filter(|volume| volume.with_record(|record| record.pod.namespace == pod.namespace))
            .map(|volume| volume.spec())
            .collect();
        let of_namespace = of_namespace.iter().map(|spec| spec.trust_sources.as_slice());
        let all: HashSet<&TrustSource> =
            of_namespace.chain([sources]).flat_map(|sources| chosen(sources, defaults)).collect();
        if all.len() <= MAX_CHOSEN_SOURCES {
            return Ok(());
        }
        let message = format!(
            "ca-source: with this volume, the pods of namespace {} would use {} trust sources on this node that the operator does not \
             list; accepted: at most {MAX_CHOSEN_SOURCES}",
            pod.namespace,
            all.len()
        );
        Err(Failure::new(FailureKind::Full, message))
    }

    /// The trust bundle of a new certificate. An error if the certificate is held back: its root is not in the trust bundle yet,
    /// and that of the certificate in use is. A renewal also waits while that root is new there.
    pub(super) fn anchored(
        &self,
        volume: &Volume,
        applied: &AppliedSpec,
        obtained: &Obtained,
        is_renewal: bool,
    ) -> Result<Anchored, Failure> {
        let (composed, sources) = self.compose_for(volume, applied, obtained)?;
        let lead = lead(&obtained.credential, &composed.trust)?;
        let is_held_back = lead.anchor.is_none() && self.leads_to(volume, &composed.trust);
        volume.set_held_back(is_held_back);
        if is_held_back {
            return Err(Failure::transient(format!(
                "the new certificate is held back, because its root ({}) is not in the trust bundle ({}): peers would refuse it; \
                 accepted: that root in the trust bundle, or an issuer under a root that is; the certificate in use stays until it ends",
                lead.root,
                sources_text(&applied.spec.trust_sources)
            )));
        }
        if is_renewal
            && let Some(pause) = self.settles_in(volume, applied, &lead, &composed, sources.as_deref())
        {
            volume.set_held_back(true);
            let message = format!(
                "the new certificate waits: its root ({}) has just been added to the trust bundle",
                lead.root
            );
            return Err(Failure::not_ready(message, pause));
        }
        let is_foreign = lead.anchor.is_none() && !composed.trust.anchors.is_empty();
        let warning = is_foreign.then(|| {
            format!(
                "its root ({}) is not in its trust bundle: a peer with the same trust bundle refuses it",
                lead.root
            )
        });
        let record = trust_record(&composed, lead);
        let trust = self.with_federated(volume, applied, Arc::new(composed.trust));
        Ok(Anchored { trust, sources, record, warning })
    }

    /// How long a new certificate waits until other pods have its root too; none: it can be used. A root that the signer names, or that
    /// comes with a changed class, reaches the pod with the certificate itself.
    fn settles_in(
        &self,
        volume: &Volume,
        applied: &AppliedSpec,
        lead: &Lead,
        composed: &Composed,
        sources: Option<&TrustBundle>,
    ) -> Option<Duration> {
        let anchor = composed.trust.anchors.get(lead.anchor?)?;
        let is_of_sources = sources?.anchors.contains(anchor);
        let current = volume.live.current().map(|current| current.trust);
        let has_root = current.or_else(|| self.trust_in_use(volume))?.anchors.contains(anchor);
        // Most renewals end here.
        let elapsed = if has_root { volume.trusted_since(anchor)?.elapsed() } else { Duration::ZERO };
        let is_of_signer = composed.signer_anchors.contains(&anchor_id(anchor));
        let is_in_force = std::ptr::eq(applied, &raw const *volume.applied());
        if !is_of_sources || is_of_signer || !is_in_force || !self.leads_to(volume, &composed.trust) {
            return None;
        }
        // Less if the certificate in use ends soon.
        SETTLE.min(self.left(volume) / 10).checked_sub(elapsed)
    }

    /// What a volume trusts with a new certificate, and what its sources name. While a source has not been read since the start, it is
    /// what it trusted before.
    fn compose_for(
        &self,
        volume: &Volume,
        applied: &AppliedSpec,
        obtained: &Obtained,
    ) -> Result<(Composed, Option<Arc<TrustBundle>>), Failure> {
        let issued = volume.with_record(|record| record.issued.clone());
        let sources = match applied.joined_sources() {
            Ok(sources) => sources,
            Err(fault) => {
                let last = self.trust_in_use(volume).zip(issued);
                let (trust, issued) = last.ok_or_else(|| Failure::transient(fault))?;
                let TrustRecord { signer_anchors, retained, .. } = issued.trust;
                // CRLs are added later, if the volume still asks for them.
                let trust = TrustBundle { crls: Vec::new(), ..(*trust).clone() };
                return Ok((Composed { trust, signer_anchors, retained }, None));
            }
        };
        let by_signer = applied.trusts_signer().then_some(obtained.trust.anchors.as_slice());
        // What it trusts now can come from sources that its class names no more.
        let had_sources = sources.is_some() || !volume.applied().trust_sources.is_empty();
        let named = Named { by_sources: sources.as_deref(), by_signer, had_sources };
        let Some(issued) = issued else {
            let overlap = Overlap { of_signer: None, of_sources: None, now: self.clock.now() };
            let composed = compose(named, &TrustBundle::default(), &TrustRecord::default(), overlap);
            return Ok((composed, sources));
        };
        let overlap =
            Overlap { of_signer: self.signer_overlap(&issued, obtained.is_pinned), ..self.overlap() };
        let is_unchanged = by_signer.is_none_or(|anchors| has_named(&issued.trust, anchors));
        let before = if is_unchanged && issued.trust.retained.is_empty() && overlap.of_sources.is_none() {
            // Nothing of it is retained, so it need not be read.
            Arc::default()
        } else {
            self.trust_in_use(volume).unwrap_or_default()
        };
        Ok((compose(named, &before, &issued.trust, overlap), sources))
    }

    /// The trust bundle of the files in use. Files that cannot be read are no reason to keep them: the next ones replace them.
    pub(super) fn trust_in_use(&self, volume: &Volume) -> Option<Arc<TrustBundle>> {
        match self.files.read_back(volume) {
            Ok(current) => current.map(|current| current.trust),
            Err(error) => {
                tracing::warn!(volume = %volume.id, %error, "the trust bundle in use cannot be read");
                None
            }
        }
    }

    /// Until when an anchor of the signer is retained: until the last certificate has ended that it can have issued before. An
    /// operator's pin is obeyed at once.
    fn signer_overlap(&self, issued: &IssuedRecord, is_pinned: bool) -> Option<jiff::Timestamp> {
        let lifetime = issued.facts.not_after.duration_since(issued.issued_at);
        (!is_pinned).then(|| self.clock.now().saturating_add(lifetime).unwrap_or(jiff::Timestamp::MAX))
    }

    fn overlap(&self) -> Overlap {
        let (now, overlap) = (self.clock.now(), self.defaults.trust.overlap);
        let of_sources =
            (!overlap.is_zero()).then(|| now.saturating_add(overlap).unwrap_or(jiff::Timestamp::MAX));
        Overlap { of_signer: None, of_sources, now }
    }

    /// Whether the certificate in use is valid, and its root is in a trust bundle.
    fn leads_to(&self, volume: &Volume, trust: &TrustBundle) -> bool {
        let now = self.clock.now();
        let root = volume.with_record(|record| {
            let issued = record.issued.as_ref().filter(|issued| issued.end() > now)?;
            issued.trust.root.as_ref()?.sha256.clone()
        });
        root.is_some_and(|root| trust.anchors.iter().any(|anchor| anchor_id(anchor) == root))
    }

    /// Writes the credential in use with what the volume trusts now as a new generation, and its record. Before the first certificate
    /// it does nothing: the first generation will have the trust bundle. Blocks this thread.
    pub(super) fn refresh_trust(&self, volume: &Volume) -> Result<(), Failure> {
        let current = match volume.live.current() {
            Some(current) => Some(current),
            None => self.files.read_back(volume)?,
        };
        let issued = volume.with_record(|record| record.issued.clone());
        let Some((current, issued)) = current.zip(issued) else { return Ok(()) };
        let applied = volume.applied();
        // A source that has not been read since the start comes here again once it is.
        let Ok(sources) = applied.present_sources() else {
            return self.refresh_federated(volume, current, issued.trust);
        };
        let signers =
            applied.trusts_signer().then(|| signer_anchors(&applied, &issued.trust, &current.trust));
        let by_signer = signers.as_deref();
        let had_sources = sources.is_some();
        let named = Named { by_sources: sources.as_deref(), by_signer, had_sources };
        let composed = compose(named, &current.trust, &issued.trust, self.overlap());
        let lead = lead(&current.credential, &composed.trust)?;
        let has_lost_root =
            lead.anchor.is_none() && issued.trust.root.is_some_and(|root| root.sha256.is_some());
        let record = trust_record(&composed, lead);
        let trust = applied.federation.refreshed(Arc::new(composed.trust), &current.trust);
        let trust = self.files.with_crls(volume, &applied, &current.credential, &trust)?;
        volume.remember_anchors(&current.trust.anchors, &trust.anchors);
        if current.trust == trust {
            // Handed over already: with a certificate, or by the process before this one.
            self.keep_trust_record(volume, record)?;
        } else {
            self.files.write_trust(volume, Current { trust, ..current }, record)?;
        }
        if has_lost_root {
            tracing::warn!(volume = %volume.id, "the root of the certificate in use is no longer trusted; renewing early");
            let pause = offset_within(CATCH_UP.min(self.left(volume) / 10), &volume.id);
            volume.schedule.bring_forward(Work::Renew, pause);
        }
        if volume.is_held_back() {
            // If its root is new, it waits again, until then.
            volume.schedule.bring_forward(Work::Renew, Duration::ZERO);
        }
        volume.schedule_retained();
        Ok(())
    }

    /// Keeps the record of a trust bundle whose files are as they should be.
    fn keep_trust_record(&self, volume: &Volume, trust: TrustRecord) -> Result<(), Failure> {
        let mut record = volume.record();
        let Some(issued) = record.issued.as_mut().filter(|issued| issued.trust != trust) else {
            return Ok(());
        };
        issued.trust = trust;
        self.files.store.write_record(&record)?;
        volume.set_record(record);
        Ok(())
    }

    /// How long the certificate in use can still be used.
    fn left(&self, volume: &Volume) -> Duration {
        let end = volume.with_record(|record| record.issued.as_ref().map(IssuedRecord::end));
        end.map(|end| until(self.clock.now(), end)).unwrap_or_default()
    }

    /// After an issuance: if the volume's certificate is the first of another CA, the other volumes of the same signer are renewed early,
    /// within a tenth of what their certificates have left.
    pub(super) fn follow_issuing_ca(&self, volume: &Volume, replaced: Option<&str>) {
        let key = |volume: &Volume| volume.authority();
        let Some(issuing_ca) = issuing_ca(volume).filter(|ca| replaced != Some(ca)) else { return };
        let signer = key(volume);
        // Most publishes end here.
        if replaced.is_none() && self.issuing_cas.has_seen(&signer, &issuing_ca) {
            return;
        }
        let others = self.registry.all();
        let others: Vec<_> =
            others.into_iter().filter(|other| other.id != volume.id && key(other) == signer).collect();
        let of_others: HashSet<String> = others.iter().filter_map(|other| self::issuing_ca(other)).collect();
        let known = of_others.iter().map(String::as_str).chain(replaced);
        if !self.issuing_cas.is_new(&signer, &issuing_ca, known) {
            return;
        }
        tracing::info!(
            signer,
            volumes = others.len(),
            "the signer has another issuing CA; certificates of the last one are renewed early"
        );
        for other in others.iter().filter(|other| self::issuing_ca(other).is_some_and(|ca| ca != issuing_ca))
        {
            let pause = offset_within(self.left(other) / 10, &other.id);
            other.schedule.bring_forward(Work::Renew, pause);
        }
    }
}

/// The sources that a pod's author has chosen, and not the operator.
fn chosen<'s>(sources: &'s [TrustSource], defaults: &TrustDefaults) -> impl Iterator<Item = &'s TrustSource> {
    sources.iter().filter(|source| {
        **source != TrustSource::Signer
            && !defaults.sources.contains(source)
            && !defaults.named.values().any(|named| named.contains(source))
    })
}

/// Schedules a new generation of each volume whose trust bundle has changed. Many volumes get theirs one after the other. Returns the
/// pause before the next time: what changes all the time is handed over as often as this, and then as it is.
pub(super) fn hand_over(volumes: &[Arc<Volume>], has_changed: impl Fn(&Volume) -> bool) -> Duration {
    let changed: Vec<_> = volumes.iter().filter(|volume| has_changed(volume)).collect();
    let window =
        TRUST_REFRESH.saturating_mul(u32::try_from(changed.len()).unwrap_or(u32::MAX)).min(MAX_TRUST_WINDOW);
    for volume in changed {
        volume.schedule.put_in(Work::RefreshTrust, offset_within(window, &volume.id));
    }
    window.max(MIN_REFRESH_INTERVAL)
}

/// The CA that has signed the certificate in use.
fn issuing_ca(volume: &Volume) -> Option<String> {
    volume.with_record(|record| record.issued.as_ref()?.trust.issuing_ca.clone())
}

/// Whether the signer named the same anchors before.
fn has_named(record: &TrustRecord, anchors: &[Vec<u8>]) -> bool {
    anchors.iter().map(|anchor| anchor_id(anchor)).eq(record.signer_anchors.iter().cloned())
}

/// The anchors that the signer named.
fn signer_anchors(applied: &AppliedSpec, record: &TrustRecord, trust: &TrustBundle) -> Vec<Vec<u8>> {
    let has_others = !applied.trust_sources.is_empty();
    let is_signers = |anchor: &&Vec<u8>| was_named_by_signer(record, &anchor_id(anchor), has_others);
    trust.anchors.iter().filter(is_signers).cloned().collect()
}

fn lead(credential: &Credential, trust: &TrustBundle) -> Result<Lead, Failure> {
    let lead = x509::lead(&credential.leaf, &credential.intermediates, &trust.anchors);
    lead.map_err(|error| Failure::permanent(format!("the answer of the signer was refused: {error}")))
}

fn trust_record(composed: &Composed, lead: Lead) -> TrustRecord {
    let anchor = lead.anchor.and_then(|index| composed.trust.anchors.get(index));
    TrustRecord {
        root: Some(LeafRoot { subject: lead.root, sha256: anchor.map(|anchor| anchor_id(anchor)) }),
        issuing_ca: Some(lead.issuing_ca),
        chain_not_after: lead.not_after,
        signer_anchors: composed.signer_anchors.clone(),
        retained: composed.retained.clone(),
    }
}

/// Sources for people.
fn sources_text(sources: &[TrustSource]) -> String {
    let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
    if sources.is_empty() { TrustSource::Signer.to_string() } else { sources.join(", ") }
}
