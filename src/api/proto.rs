//! The messages of the service and its client, which `tokend-client` generates from
//! `proto/tokend/v1/token_service.proto`, and the descriptors for reflection.

pub use tokend_client::proto::*;

/// The encoded `FileDescriptorSet` of the contract and what it imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tokend_descriptor");

/// The name of the service, as health and reflection know it.
pub const SERVICE: &str = "tokend.v1.TokenService";
