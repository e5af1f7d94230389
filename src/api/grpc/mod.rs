//! The gRPC API: converts messages to domain types and results to responses. Built by the server.
//! Knows the actions and the engine; never the store.

mod audit;
mod call;
mod changes;
mod concurrency_limit;
mod convert;
mod credits;
mod ext_authz;
mod fast_path;
mod fields;
mod grant;
mod limits;
mod login;
mod manage;
mod plan_calls;
mod plans;
mod policies;
mod reflection;
mod reply;
mod reserved_body;
mod reuse_detection;
mod serve;
pub(crate) mod server;
mod service;
mod stream;
pub(crate) mod token_api;
mod usage;
mod users;
mod verify;
mod watch;
mod web;

pub use concurrency_limit::ConcurrencyLimit;
pub use ext_authz::{CHECK, ExtAuthz, MAX_CHECK_BYTES, proto as envoy};
pub use fast_path::{CallDispatcher, Methods};
pub use login::LoginApi;
pub use reflection::{Reflected, Reflection};
/// Only for the bench of the leaf functions.
#[doc(hidden)]
pub use reply::VerifyReply;
pub use reserved_body::ReservedBody;
pub use serve::{ConnectionLimits, serve};
pub use token_api::TokenApi;
pub use web::GrpcWeb;

/// The most header fields of a request: each takes about a hundred bytes of memory in addition to
/// its text. For HTTP/1, hyper's own limit applies.
pub(crate) const MAX_HEADERS: usize = 100;
