//! What tokens depend on while keys change: rotation, loss, the durable verifier, and the schema
//! that all replicas share.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod fallback;
mod locks;
mod logical;
mod rotation;
mod schema;
mod upgrade;
