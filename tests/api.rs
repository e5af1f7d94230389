//! The suites that test what a server answers, each a folder: one binary and one Postgres, with a database for each test, so
//! that the slow tests of one suite run beside those of another. `cargo test --test api keys::` runs one suite. Suites that
//! start processes, cause faults or floods, or measure memory are binaries of their own.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod callers;
mod console;
mod examples;
mod governance;
mod http;
mod integrations;
mod keys;
mod life;
mod limits;
#[expect(dead_code, reason = "other suites use the rest")]
mod support;
mod tls;
mod tokens;
mod watch;
