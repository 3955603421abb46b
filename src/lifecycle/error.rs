//! Everything that can go wrong in a volume's life.

use super::locks::Operation;
use crate::attributes::VolumeId;
use crate::delivery::DeliveryError;
use crate::issue::{FailureClass, IssueError};
use crate::store::StoreError;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why a volume's operation failed.
#[derive(Debug, Error)]
pub enum LifecycleError {
    /// Somebody else works on the volume.
    #[error("volume {volume}: {operation} is under way; try again")]
    Busy {
        /// The volume.
        volume: VolumeId,
        /// What is under way.
        operation: Operation,
    },
    /// More publishes are under way than are allowed.
    #[error(
        "{limit} publishes are under way on this node, as many as --max-volumes-in-flight allows; try again"
    )]
    TooManyInFlight {
        /// The limit.
        limit: usize,
    },
    /// The volume is there already, but not as it is asked for now.
    #[error("volume {volume} is already published with different {what}")]
    Incompatible {
        /// The volume.
        volume: VolumeId,
        /// What differs.
        what: &'static str,
    },
    /// The target holds a mount that certlet did not make.
    #[error("target_path {}: something else is mounted there; unmount it, or delete the pod", .target.display())]
    ForeignMount {
        /// The target.
        target: PathBuf,
    },
    /// No such volume.
    #[error("volume {volume} is not known on this node")]
    NotFound {
        /// The volume.
        volume: VolumeId,
    },
    /// The signer has not answered within the time the caller gives.
    #[error(
        "the {signer} signer has not answered within {:.0} s{}; the request stays in place and the next attempt takes \
         it up", .waited.as_secs_f64(), note(.progress.as_deref())
    )]
    StillWaiting {
        /// Which signer.
        signer: &'static str,
        /// How long this call waited.
        waited: Duration,
        /// The signer's own note.
        progress: Option<String>,
    },
    /// The call was cut off: by an unpublish of the same volume, or by its caller.
    #[error("volume {volume}: the operation was cancelled")]
    Cancelled {
        /// The volume.
        volume: VolumeId,
    },
    /// The driver is ending.
    #[error("certlet is shutting down; try again")]
    ShuttingDown,
    /// No bundle.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// No files.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug: the task that did the work panicked.
    #[error("internal error: the task for volume {volume} ended early: {reason}")]
    Internal {
        /// The volume.
        volume: VolumeId,
        /// What the runtime says.
        reason: String,
    },
}

fn note(progress: Option<&str>) -> String {
    progress.map_or_else(String::new, |note| format!(" ({note})"))
}

impl LifecycleError {
    /// How a renewal that failed this way is tried again.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Issue(error) => error.class(),
            Self::Incompatible { .. } | Self::Delivery(_) => FailureClass::Permanent,
            Self::Busy { .. }
            | Self::TooManyInFlight { .. }
            | Self::ForeignMount { .. }
            | Self::NotFound { .. }
            | Self::StillWaiting { .. }
            | Self::Cancelled { .. }
            | Self::ShuttingDown
            | Self::Store(_)
            | Self::Internal { .. } => FailureClass::Transient,
        }
    }
}
