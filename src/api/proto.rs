//! The messages of the service and its client, which `tokend-client` generates from
//! `proto/tokend/v1/token_service.proto`, and the descriptors for reflection.

use time::OffsetDateTime;
pub use tokend_client::proto::*;

/// The encoded `FileDescriptorSet` of the contract and what it imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tokend_descriptor");

/// The name of the service, as health and reflection know it.
pub const SERVICE: &str = "tokend.v1.TokenService";

/// Converts a time.
pub(crate) fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        // Below 10^9, which fits.
        nanos: i32::try_from(time.nanosecond()).unwrap_or(0),
    }
}
