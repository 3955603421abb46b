//! `certlet sidecar`: the real process, in a directory as the containers of a pod share it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/cert_manager.rs"]
#[allow(dead_code, reason = "only its issuers are needed here")]
mod cert_manager;
#[path = "../support/certificate_requests.rs"]
mod certificate_requests;
#[path = "../socket/client.rs"]
#[allow(dead_code, reason = "a part of it is enough")]
mod client;
#[path = "../support/fake_pca/mod.rs"]
#[allow(dead_code, reason = "a part of it is enough")]
mod fake_pca;
mod harness;
mod life;
mod once;
mod refused;
mod signers;
#[path = "../support/mod.rs"]
mod support;
