//! Admits issuances: a limited number of publishes at a time, and only while the store has space for them.

use super::volume::Volume;
use crate::model::{Failure, FailureKind};
use crate::platform::{FairPermit, FairSemaphore};
use crate::store::{Promise, Record, Size, Store, StoreError, VOLUME_INODES, Want};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Size of a usual new volume: its files and a small record, each rounded up to whole pages.
const USUAL_VOLUME: Size = Size { bytes: 40 * 1024, inodes: VOLUME_INODES };

/// What a renewal keeps at most of a signing that is under way, twice while it is replaced: key, signing request and checkpoint.
const CHECKPOINT: Size = Size { bytes: 16 * 1024, inodes: 2 };

/// How long a publish waits for a slot, if its caller waits twice as long: the rest of its time is for the signer.
const MAX_SLOT_WAIT: Duration = Duration::from_mins(1);

/// Admission of issuances.
pub(super) struct Admission {
    limit: usize,
    slots: Arc<FairSemaphore>,
    store: Arc<Store>,
}

impl Admission {
    /// At most `limit` publishes at a time (`--max-volumes-in-flight`).
    pub(super) fn new(limit: usize, store: Arc<Store>) -> Self {
        Self { limit, slots: FairSemaphore::new(limit), store }
    }

    /// Waits for a slot for one publish, for half of the time that its caller waits. Namespaces are served one after the other.
    pub(super) async fn slot(
        &self,
        namespace: &str,
        needed_by: Timestamp,
        time: Duration,
    ) -> Result<FairPermit, Failure> {
        let slot = timeout(MAX_SLOT_WAIT.min(time / 2), self.slots.acquire(namespace, needed_by));
        slot.await.map_err(|_| {
            let message = format!(
                "{} publishes are under way on this node, as many as --max-volumes-in-flight allows; try again",
                self.limit
            );
            Failure::new(FailureKind::Full, message)
        })
    }

    /// Admits an issuance where the store has space for it and for all that were admitted before it: before the signer is
    /// asked, and so before the size of its answer is known. A renewal counts as one of the same size as before.
    pub(super) fn admit<'a>(&self, volume: &'a Volume, record: &Record) -> Result<Promise<'a>, StoreError> {
        // The record holds what the pod's author wrote; the request holds it once more.
        let record_bytes = record.encoded_len() as u64;
        let written = Size { bytes: 2 * record_bytes, inodes: 0 };
        let held = volume.account.held();
        let want = if record.issued.is_none() {
            let new = USUAL_VOLUME.plus(written);
            Want { is_renewal: false, after: new, extra: new, record: record_bytes }
        } else {
            Want {
                is_renewal: true,
                after: held,
                extra: held.plus(CHECKPOINT).plus(written),
                record: record_bytes,
            }
        };
        volume.account.promise(&self.store.capacity()?, &want)
    }
}
