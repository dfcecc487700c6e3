//! The generated contract.

mod call_error;
mod codec;
pub mod json;

pub use call_error::DOMAIN;
pub use codec::Codec;

/// Package `jobwatch.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("jobwatch.v1");
}

/// Messages between the replicas of one gateway.
pub mod cluster {
    /// Package `jobwatch.cluster.v1`.
    #[allow(missing_docs, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/cluster/jobwatch.cluster.v1.rs"));
    }
}

/// The service as this server implements it. Messages that contain a status contain it
/// encoded.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod served {
    include!(concat!(env!("OUT_DIR"), "/served/jobwatch.v1.rs"));
}

/// Package `google.longrunning`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod longrunning {
    include!(concat!(env!("OUT_DIR"), "/longrunning/google.longrunning.rs"));
}

/// Descriptors of the contract, of all that it imports, of what a `google.rpc.Status` of a
/// failed call holds, and of `google.longrunning`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/jobwatch.v1.bin"));
