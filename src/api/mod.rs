//! The APIs of the service: gRPC and HTTP, with one mapping from errors to statuses for both. Built
//! by the server. Knows the actions and the engine; never the database.

pub mod console;
pub mod context;
pub mod drain;
pub mod error;
pub(crate) mod events;
pub mod grpc;
pub mod health;
pub mod http;
pub mod limits;
pub(crate) mod message_json;
pub mod origin;
pub mod proto;
pub mod status;
