//! Changes in the database, as they happen: followed for the cache, sent to watchers, announced to
//! other replicas. Started by the engine and the server. Knows no secrets and no protobuf messages.

pub mod announce;
mod catch_up;
pub mod feed;
pub mod freshness;
pub mod hub;
pub mod position;
pub mod registration;
