//! The one map from what went wrong to the gRPC code that the CSI specification gives it.

use crate::issue::FailureClass;
use crate::lifecycle::LifecycleError;
use tonic::{Code, Status};

/// The status for a volume's error; the kubelet shows its message in the pod's events.
///
/// `CANCELLED`, `DEADLINE_EXCEEDED`, `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and `ABORTED` leave the volume "uncertain" for
/// the kubelet, which then calls unpublish even though no publish succeeded; every other code is final to it.
pub(super) fn status(error: &LifecycleError) -> Status {
    let code = match error {
        LifecycleError::Busy { .. } => Code::Aborted,
        LifecycleError::TooManyInFlight { .. } => Code::ResourceExhausted,
        LifecycleError::Incompatible { .. } => Code::AlreadyExists,
        LifecycleError::ForeignMount { .. } => Code::FailedPrecondition,
        LifecycleError::NotFound { .. } => Code::NotFound,
        LifecycleError::StillWaiting { .. } => Code::DeadlineExceeded,
        LifecycleError::Cancelled { .. } => Code::Cancelled,
        LifecycleError::ShuttingDown => Code::Unavailable,
        LifecycleError::Issue(error) => match error.class() {
            FailureClass::Permanent => Code::FailedPrecondition,
            FailureClass::Throttled { .. } => Code::ResourceExhausted,
            FailureClass::NotReady { .. } | FailureClass::Transient => Code::Unavailable,
        },
        LifecycleError::Store(error) if error.is_full() => Code::ResourceExhausted,
        LifecycleError::Delivery(_) | LifecycleError::Store(_) | LifecycleError::Internal { .. } => {
            Code::Internal
        }
    };
    Status::new(code, error.to_string())
}

/// The code's name as gRPC spells it, for metrics and logs.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
