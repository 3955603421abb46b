//! What the author of a pod is told.

use super::LifecycleError;
use crate::attributes::{PodIdentity, VolumeId};
use jiff::Timestamp;

/// Something the author of a pod should know.
#[derive(Clone, Copy, Debug)]
pub enum PodEvent<'a> {
    /// The volume has its first certificate.
    Issued,
    /// It has none yet, and why.
    NotIssued(&'a LifecycleError),
    /// Its certificate could not be renewed, and why; it still has the old one.
    RenewalFailing(&'a LifecycleError),
    /// Its certificate is renewed again.
    RenewalRecovered,
}

/// Tells authors of pods. Whoever implements it sees to it that nobody is told the same again and again.
pub trait PodEvents: Send + Sync + 'static {
    /// Tells one; `not_after` is of the certificate that the volume has now.
    fn tell(&self, volume: &VolumeId, pod: &PodIdentity, not_after: Option<Timestamp>, event: PodEvent<'_>);

    /// The volume is gone.
    fn forget(&self, _volume: &VolumeId) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl PodEvents for NoEvents {
    fn tell(&self, _: &VolumeId, _: &PodIdentity, _: Option<Timestamp>, _: PodEvent<'_>) {}
}
