//! Attacks on the driver and on the neighbours on its node: one file for each kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
#[path = "../support/in_process.rs"]
mod in_process;
mod queues;
mod requests;
mod store;
#[path = "../support/mod.rs"]
mod support;
