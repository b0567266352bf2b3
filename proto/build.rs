//! Compiles the `.proto` files without protoc: descriptors by protox, messages by prost, services by tonic, canonical JSON by pbjson.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 9] = [
    "telltale/v1/transaction.proto",
    "telltale/v1/outcome.proto",
    "telltale/v1/verdict.proto",
    "telltale/v1/scorer.proto",
    "telltale/v1/decisions.proto",
    "telltale/v1/models.proto",
    "telltale/v1/templates.proto",
    "telltale/journal/v1/journal.proto",
    "inference/open_inference.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let encoded = descriptors.encode_to_vec();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.binpb"), &encoded)?;

    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_fds(descriptors)?;

    pbjson_build::Builder::new().register_descriptors(&encoded)?.btree_map(["."]).ignore_unknown_fields().build(&[".telltale"])?;
    Ok(())
}
