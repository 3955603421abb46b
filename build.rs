//! Compiles the two gRPC protocols of certlet. No protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Only `/healthz` needs a client: it calls Probe on the CSI socket.
    for (proto, needs_client) in [("proto/csi.proto", true), ("proto/pluginregistration.proto", false)] {
        println!("cargo::rerun-if-changed={proto}");
        let descriptors = protox::compile([proto], ["proto"])?;
        tonic_prost_build::configure()
            .build_client(needs_client)
            // UNIMPLEMENTED for methods that the driver does not offer.
            .generate_default_stubs(true)
            .compile_fds(descriptors)?;
    }
    Ok(())
}
