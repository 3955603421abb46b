//! Compiles the two protocols certlet speaks, without a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PROTOS: [&str; 2] = ["proto/csi.proto", "proto/pluginregistration.proto"];
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    // The clients are for `certlet demo`, the benchmark and the tests, which play the kubelet.
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(descriptors)?;
    Ok(())
}
