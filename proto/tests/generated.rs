//! The generated code is that of the `.proto` files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::{env, fs};

#[test]
fn the_generated_code_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let protos = ["csi.proto", "pluginregistration.proto"].map(|name| crate_dir.join(name));
    tonic_prost_build::configure()
        // UNIMPLEMENTED for methods that the driver does not offer.
        .generate_default_stubs(true)
        .out_dir(scratch.path())
        .compile_fds(protox::compile(protos, [crate_dir]).unwrap())
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
