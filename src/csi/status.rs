//! The only map from failures to the gRPC codes of the CSI specification.

use crate::model::{Failure, FailureKind, clipped};
use tonic::{Code, Status};

/// The status for a failure. The kubelet shows its message in the pod's Events.
///
/// After `CANCELLED`, `DEADLINE_EXCEEDED`, `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and `ABORTED`, the kubelet regards the volume
/// as "uncertain" and calls unpublish, although no publish succeeded. Every other code is final.
pub(super) fn status(failure: &Failure) -> Status {
    let code = match failure.kind {
        FailureKind::Permanent | FailureKind::Occupied => Code::FailedPrecondition,
        FailureKind::Throttled | FailureKind::OverBudget | FailureKind::Full => Code::ResourceExhausted,
        FailureKind::NotReady | FailureKind::Transient | FailureKind::ShuttingDown => Code::Unavailable,
        FailureKind::Busy => Code::Aborted,
        FailureKind::Conflict => Code::AlreadyExists,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::StillWaiting => Code::DeadlineExceeded,
        FailureKind::Cancelled => Code::Cancelled,
        FailureKind::Internal => Code::Internal,
    };
    new(code, &failure.message)
}

/// A status whose message fits into the headers of the answer, also percent-encoded: what is listed in it can be long.
pub(super) fn new(code: Code, message: &str) -> Status {
    /// gRPC libraries take 16 KiB of headers by default.
    const MAX_BYTES: usize = 4096;
    Status::new(code, clipped(message, MAX_BYTES))
}

/// The code's name in the spelling of gRPC, for metrics and logs.
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
