//! Attacks on the driver, by somebody who reaches what the test reaches: one file for each kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
#[path = "../support/mod.rs"]
mod support;
