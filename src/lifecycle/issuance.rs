//! What publish and renewal share: one issuance, from key to files, record and queue.

use super::errand::{Arrival, Errand};
use super::locks::Guard;
use super::news::{News, serial};
use super::schedule::{self, Lifetime};
use super::volume::Volume;
use super::{LifecycleError, PodEvent, Shared};
use crate::attributes::{Attributes, KeyEncoding, VolumeId};
use crate::delivery;
use crate::issue::{Bundle, IssueError, IssueRequest, PrivateKey};
use crate::signer::{Progress, Purpose, Signer};
use crate::store::{IssuedRecord, Pending, Record};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a certificate that was refused is all that a slow signer is asked for, at most.
const REFUSAL_STANDS: Duration = Duration::from_mins(10);

/// A bundle, and what its signer remarked.
struct Issued {
    bundle: Bundle,
    remark: Option<String>,
}

/// A key, and the request made with it.
struct Prepared {
    key: PrivateKey,
    pending: Pending,
}

impl Shared {
    /// One issuance for a volume whose lock the caller holds: files written, record written, for a publish mounted, the
    /// next renewal queued.
    pub(super) async fn issue(
        self: &Arc<Self>,
        guard: &Guard,
        id: &VolumeId,
        volume: &Arc<Volume>,
        errand: Errand,
    ) -> Result<(), LifecycleError> {
        let started = Instant::now();
        let before = volume.look(|record| (record.issued.is_some(), record.last_error.is_some()));
        let superseded = serial(volume);
        let purpose = errand.purpose;
        let result = self.issue_and_deliver(guard, id, volume, errand).await;
        let signer = volume.attributes.signer;
        self.metrics.issuance(
            signer,
            purpose.as_str(),
            result.as_ref().err().map(LifecycleError::class),
            started.elapsed(),
        );
        self.tell_author(id, volume, before, &result);
        result?;
        self.queue_renewal(id, volume);
        self.tell_signer(id, volume, News::Delivered { superseded });
        Ok(())
    }

    /// What the pod's author should know of an issuance: a first certificate, a failure, and that it is over.
    fn tell_author(
        &self,
        id: &VolumeId,
        volume: &Volume,
        (was_issued, had_failed): (bool, bool),
        result: &Result<(), LifecycleError>,
    ) {
        let event = match result {
            Ok(()) if !was_issued => PodEvent::Issued,
            Ok(()) if had_failed => PodEvent::RenewalRecovered,
            Ok(()) | Err(LifecycleError::Cancelled { .. }) => return,
            Err(error) if was_issued => PodEvent::RenewalFailing(error),
            Err(error) => PodEvent::NotIssued(error),
        };
        let (pod, not_after) = volume
            .look(|record| (record.pod.clone(), record.issued.as_ref().map(|issued| issued.facts.not_after)));
        self.events.tell(id, &pod, not_after, event);
    }

    async fn issue_and_deliver(
        self: &Arc<Self>,
        guard: &Guard,
        id: &VolumeId,
        volume: &Arc<Volume>,
        mut errand: Errand,
    ) -> Result<(), LifecycleError> {
        let Errand { purpose, patience, .. } = errand;
        let is_first = volume.look(|record| record.issued.is_none());
        let _arrival = if is_first { Some(self.admit(volume)?) } else { None };
        let signer = Arc::clone(self.issuer.signer(volume.attributes.signer)?);
        let issued = tokio::select! {
            biased;
            () = guard.cancel().cancelled() => Err(LifecycleError::Cancelled { volume: id.clone() }),
            result = self.sign(id, volume, &*signer, &mut errand) => result,
            () = elapsed(patience) => Err(self.still_waiting(id, &*signer, patience.unwrap_or_default()).await),
        }?;
        self.deliver(id, volume, issued, purpose == Purpose::Publish).await
    }

    /// Lets a new volume into the store, where there is room for it and for all that are on their way.
    fn admit(&self, volume: &Volume) -> Result<Arrival<'_>, LifecycleError> {
        /// Files, a small record, and what each takes more to fill its page.
        const USUAL: usize = 40 * 1024;
        // What the author wrote is in the record, and once more in the request.
        let bytes = USUAL + 2 * volume.look(Record::encoded_len);
        let (arrival, count, bytes) = self.arrivals.one_more(u64::try_from(bytes).unwrap_or(u64::MAX / 2));
        self.store.admit(count, bytes)?;
        Ok(arrival)
    }

    /// Key, request, signature, verification.
    async fn sign(
        self: &Arc<Self>,
        id: &VolumeId,
        volume: &Arc<Volume>,
        signer: &dyn Signer,
        errand: &mut Errand,
    ) -> Result<Issued, LifecycleError> {
        let Prepared { key, pending } = self.prepare(id, volume, signer).await?;
        let (pod, tokens) = (volume.look(|record| record.pod.clone()), volume.tokens());
        let request = IssueRequest {
            volume: id,
            pod: &pod,
            tokens: &tokens,
            attributes: &volume.attributes,
            key: &key,
            csr_der: pending.csr_der(),
            progress: &pending,
            purpose: errand.purpose,
        };
        let result = errand.wait_for(self.issuer.issue(request)).await;
        if signer.is_slow() && matches!(result, Err(IssueError::Refused(_))) {
            pending.refuse(self.clock.now())?;
        }
        let mut chain = result?;
        let remark = chain.remark.take();
        Ok(Issued { bundle: Bundle::new(key, chain), remark })
    }

    /// The key to certify, with its request: the pair that waits for a slow signer, the key in use where it is to be
    /// kept, or a new one.
    async fn prepare(
        self: &Arc<Self>,
        id: &VolumeId,
        volume: &Arc<Volume>,
        signer: &dyn Signer,
    ) -> Result<Prepared, LifecycleError> {
        let spec = volume.attributes.key;
        let follows = volume.look(|record| record.issued.as_ref().map(|issued| issued.generation));
        let fits =
            |pem: &[u8]| PrivateKey::from_pem(pem).ok().filter(|key| key.algorithm() == spec.algorithm);
        if signer.is_slow()
            && let Some(pending) = self.store.pending(id)?
            && pending.follows() == follows
            && pending.refused_at().is_none_or(|at| self.refusal_stands(at, volume))
            && let Some(key) = fits(pending.key_pem())
        {
            return Ok(Prepared { key, pending });
        }
        let in_use =
            if spec.reuse { self.store.read_file(id, &volume.attributes.files.private_key)? } else { None };
        let key = match in_use.as_ref().and_then(|pem| fits(pem)) {
            Some(key) => key,
            None => self.issuer.make_key(spec.algorithm).await?,
        };
        let csr_der = self.issuer.csr(&volume.attributes, &key)?;
        if signer.is_slow() && volume.look(|record| record.issued.is_none()) {
            // Before anything waits: without a record, a restart takes the volume for debris.
            self.store.write_record(&volume.record())?;
        }
        let key_pem = key.to_pem(KeyEncoding::Pkcs8).map_err(IssueError::from)?;
        let pending = self.store.new_pending(id, key_pem, csr_der, follows);
        if signer.is_slow() && spec.algorithm.is_slow_to_make() {
            // Kept from the start: attempts that end before the signer's first note shall not each make a key.
            pending.save("").map_err(IssueError::from)?;
        }
        Ok(Prepared { key, pending })
    }

    async fn deliver(
        self: &Arc<Self>,
        id: &VolumeId,
        volume: &Arc<Volume>,
        issued: Issued,
        bind: bool,
    ) -> Result<(), LifecycleError> {
        let volume = Arc::clone(volume);
        self.blocking(id, move |shared| {
            let Attributes { files, key, fs_group, .. } = &volume.attributes;
            let mut record = volume.record();
            let encoded = delivery::encode(&issued.bundle, files, key.encoding)?;
            let generation =
                shared.store.write_bundle(&record.volume_id, &encoded, fs_group.or(record.fs_group))?;
            record.issued = Some(shared.issued_record(&volume, issued, generation));
            record.last_error = None;
            shared.store.write_record(&record)?;
            // From here on the files are in place; should the bind fail, a retry finds them and binds.
            volume.set_record(record.clone());
            // Until now a crash would have had the signer take up the same request again.
            if shared.issuer.signer(volume.attributes.signer)?.is_slow() {
                shared.store.clear_pending(&record.volume_id)?;
            }
            if bind {
                shared.store.bind(&record.volume_id, &record.target)?;
            }
            Ok(())
        })
        .await
    }

    fn issued_record(&self, volume: &Volume, issued: Issued, generation: u64) -> IssuedRecord {
        let Issued { bundle, remark } = issued;
        let issued_at = self.clock.now();
        let lifetime = Lifetime { issued_at, not_after: bundle.facts.not_after };
        let id = volume.look(|record| record.volume_id.clone());
        let renew_at =
            schedule::renew_at(&id, lifetime, volume.attributes.renew_before, self.limits.renewal_interval);
        IssuedRecord { facts: bundle.facts, issued_at, renew_at, generation, remark }
    }

    /// Whether a certificate that was refused then is all that its signer is asked for. It is looked at again for a while,
    /// which costs nobody anything and heals where our clock was wrong; then another is asked for, in case the issuer was
    /// mended, and in time for the certificate that is in use. A time in the future is of a clock that was wrong then.
    fn refusal_stands(&self, at: Timestamp, volume: &Volume) -> bool {
        let now = self.clock.now();
        let in_use = volume.look(|record| record.issued.as_ref().map(|issued| issued.facts.not_after));
        let stands =
            in_use.map_or(REFUSAL_STANDS, |end| REFUSAL_STANDS.min(crate::clock::until(at, end) / 2));
        !schedule::is_ahead(at, now) && crate::clock::until(at, now) < stands
    }

    /// Puts the volume's renewal where its record says.
    pub(super) fn queue_renewal(&self, id: &VolumeId, volume: &Volume) {
        if let Some(at) = volume.look(|record| record.issued.as_ref().map(|issued| issued.renew_at)) {
            self.queue.put(id, at);
        }
    }

    async fn still_waiting(
        self: &Arc<Self>,
        id: &VolumeId,
        signer: &dyn Signer,
        waited: Duration,
    ) -> LifecycleError {
        let progress = {
            let id = id.clone();
            self.blocking(&id.clone(), move |shared| Ok(shared.store.pending(&id)?)).await
        };
        LifecycleError::StillWaiting {
            signer: signer.kind().as_str(),
            waited,
            progress: progress
                .ok()
                .flatten()
                .and_then(|pending| pending.load())
                .map(|note| signer.describe(&note)),
        }
    }
}

async fn elapsed(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}
