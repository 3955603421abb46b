//! The generated code is that of the `.proto` files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use prost::Message;
use prost_types::FileDescriptorSet;
use std::path::Path;
use std::{env, fs};

const PROTOS: [&str; 5] =
    ["csi.proto", "pluginregistration.proto", "workload.proto", "envoy/service/secret/v3/sds.proto", SECRET];
const SECRET: &str = "envoy/extensions/transport_sockets/tls/v3/secret.proto";
/// The files of the services on a volume's socket.
const OF_SOCKETS: [&str; 6] = [
    "workload.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "google/rpc/status.proto",
    "google/protobuf/any.proto",
    SECRET,
];

/// The descriptors of the services on a volume's socket, for gRPC's server reflection, as the bytes of a `FileDescriptorSet`.
fn descriptors(compiled: &FileDescriptorSet) -> String {
    let mut files = compiled.file.clone();
    files.retain(|file| OF_SOCKETS.contains(&file.name()));
    for file in &mut files {
        file.source_code_info = None;
    }
    let bytes = FileDescriptorSet { file: files }.encode_to_vec();
    format!("b\"{}\"\n", bytes.escape_ascii())
}

#[test]
fn the_generated_code_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let compiled = protox::compile(PROTOS.map(|name| crate_dir.join(name)), [crate_dir]).unwrap();
    fs::write(scratch.path().join("descriptors.rs"), descriptors(&compiled)).unwrap();
    tonic_prost_build::configure()
        // UNIMPLEMENTED for methods that the driver does not offer.
        .generate_default_stubs(true)
        // Messages with a private key are not for logs.
        .skip_debug(["X509SVID", "X509SVIDResponse"])
        .skip_debug([".envoy.extensions.transport_sockets.tls.v3", ".envoy.service.discovery.v3"])
        .out_dir(scratch.path())
        .compile_fds(compiled)
        .unwrap();
    for entry in fs::read_dir(scratch.path()).unwrap() {
        let generated = entry.unwrap().path();
        let kept = crate_dir.join("src/generated").join(generated.file_name().unwrap());
        if env::var_os("CERTLET_WRITE_PROTO").is_some() {
            fs::copy(&generated, &kept).unwrap();
        }
        let up_to_date = fs::read(&generated).unwrap() == fs::read(&kept).unwrap_or_default();
        assert!(up_to_date, "{} is out of date; run: make proto", kept.display());
    }
}
