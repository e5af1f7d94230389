//! What has changed in the database, as it happens: followed for the cache, told to watchers, announced to other
//! replicas. Started by the engine and the server. Knows no secrets and no messages.

pub mod announce;
mod catch_up;
pub mod feed;
pub mod freshness;
pub mod hub;
pub mod position;
pub mod registration;
