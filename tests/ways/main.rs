//! The ways in beside the RPCs, from outside: each by itself, all of them against Verify, and behind the real
//! gateways that they are for.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod asking;
mod forward_auth;
mod introspection;
mod parity;
mod revocation;
mod together;
