//! TLS from outside: the server's certificate and its renewal, callers by client certificate, and a Postgres
//! that is reached over TLS. All certificates are real, made by the tests.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod authority;
mod certificates;
mod postgres;
mod renewal;
