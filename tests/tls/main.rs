//! TLS from outside: the server's certificate and its renewal, callers with client certificates,
//! and connections to Postgres over TLS. All certificates are real, created by the tests.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod authority;
mod certificates;
mod postgres;
mod renewal;
