//! Admits issuances, while the store has space for them.

use super::volume::Volume;
use crate::store::{Promise, Record, Size, Store, StoreError, VOLUME_INODES, Want};
use std::sync::Arc;

/// Size of a usual new volume: its files and a small record, each rounded up to whole pages.
const USUAL_VOLUME: Size = Size { bytes: 40 * 1024, inodes: VOLUME_INODES };

/// What a renewal keeps at most of a signing that is under way, twice while it is replaced: key, signing request and checkpoint.
const CHECKPOINT: Size = Size { bytes: 16 * 1024, inodes: 2 };

/// Admission of issuances.
pub(super) struct Admission {
    store: Arc<Store>,
}

impl Admission {
    /// Admission to this store.
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
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
