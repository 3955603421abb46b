//! Events on pods, as `kubectl describe pod` shows them to the pod's author.

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// Information.
    Normal,
    /// Something needs attention.
    Warning,
}

/// One Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodEvent {
    /// Its type.
    pub kind: EventKind,
    /// For machines, in `UpperCamelCase`.
    pub reason: &'static str,
    /// For people; the API's field `note`.
    pub message: String,
}
