//! The gRPC face: messages become domain types on the way in and answers on the way out. Built by the
//! server. Knows the actions and the engine; never the store.

mod audit;
mod call;
mod callers;
mod changes;
mod convert;
mod direct;
mod ending;
mod error;
mod few;
mod health;
mod held;
mod manage;
mod penalty;
mod policies;
mod redact;
mod reflection;
mod reply;
mod serve;
mod service;
mod status;
mod stream;
mod suspicion;
mod turn;
mod verify;
mod watch;

pub use callers::Callers;
pub(crate) use callers::bearer;
pub use direct::{Direct, Methods};
pub use ending::{End, Ending};
pub(crate) use error::CallError;
pub use few::Few;
pub use health::{Health, proto as health_proto};
pub use held::Held;
pub use reflection::{Reflected, Reflection};
/// For the bench of the leaves alone.
#[doc(hidden)]
pub use reply::VerifyReply;
pub use serve::{MAX_HEADER_BYTES, Transport, serve};
pub use service::TokenApi;
pub(crate) use status::{check_code, http_status, log as log_failure};

/// The messages and the client of the service, generated from `proto/tokend/v1/token_service.proto`.
#[expect(clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("tokend.v1");

    /// The encoded `FileDescriptorSet` of the contract and what it imports, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("tokend_descriptor");
}

/// The service's trait and router, generated from the same file.
#[expect(clippy::pedantic, unreachable_pub, reason = "generated")]
mod server {
    include!(concat!(env!("OUT_DIR"), "/server/tokend.v1.rs"));
}

/// The largest request message that is read, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
