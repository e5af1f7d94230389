//! The main functions, from outside: tokens are created, listed, revoked and verified over a real
//! socket, on a real Postgres.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod create;
mod disable;
mod extremes;
mod fields;
mod framing;
mod full;
mod get;
mod list;
mod networks;
mod pages;
mod revoke;
mod scale;
mod update;
mod verify;
