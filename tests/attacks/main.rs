//! Attacks by a tenant on the neighbours on its node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/in_process.rs"]
mod in_process;
mod store;
#[path = "../support/mod.rs"]
mod support;
