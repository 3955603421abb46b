//! Sinks: they hand a credential and its trust bundle to a pod.

pub(crate) mod files;
