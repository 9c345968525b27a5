//! Generates the wire code. The .proto files are compiled by protox, in Rust: no protoc needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["handover/v1/bulk.proto", "handover/v1/source.proto", "handover/v1/control.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    // `Bytes` fields share the receive buffer instead of copying it.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
