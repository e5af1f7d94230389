//! The gRPC face: messages become domain types on the way in and answers on the way out. Built by the
//! server. Knows the actions and the engine; never the store.

mod callers;
mod convert;
mod error;
mod health;
mod redact;
mod service;
mod status;

pub use health::Health;
pub use service::TokenApi;

/// The messages, the service and its client, generated from `proto/tokend/v1/token_service.proto`.
#[expect(clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("tokend.v1");

    /// The encoded `FileDescriptorSet` of the contract and what it imports, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tokend_descriptor");
}

/// The largest request message that is read, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
