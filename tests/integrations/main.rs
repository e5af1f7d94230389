//! The integrations besides the RPCs, from outside: each alone, all of them compared with Verify,
//! and behind the real gateways that they are for.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod asking;
mod browser;
mod checks;
mod ext_authz;
mod forward_auth;
mod gateways;
mod grpc_web;
mod inputs;
mod introspection;
mod leaks;
mod oauth;
mod parity;
mod program;
mod revocation;
mod rpcs;
mod rust_client;
mod together;
mod token_review;
