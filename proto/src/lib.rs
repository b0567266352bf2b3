//! The wire contract: generated types of `telltale.v1`, `telltale.journal.v1` (with their canonical JSON) and `inference`.
//!
//! What enters is bytes or JSON, what leaves is typed messages. No logic lives here: meaning begins in the crates
//! that convert these types into their own.

pub mod json;

/// Messages and services that gateways and proxies use.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("telltale.v1");
    include!(concat!(env!("OUT_DIR"), "/telltale.v1.serde.rs"));
}

/// Records of the journal.
pub mod journal {
    /// Version 1 of the journal's records.
    #[allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "generated code"
    )]
    pub mod v1 {
        tonic::include_proto!("telltale.journal.v1");
        include!(concat!(env!("OUT_DIR"), "/telltale.journal.v1.serde.rs"));
    }
}

/// The Open Inference Protocol, version 2: messages and service that foreign clients use.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "generated code"
)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// Encoded `FileDescriptorSet` of everything above, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
