//! Compiles the protocol files to Rust, without a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PROTO: &str = "proto/pantala/v1/control.proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Identifiers and digests are slices of the frame they came in, not an allocation each.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
