//! Audit log, policies and retention, from outside.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod ends;
mod enforcement;
mod events;
mod policy;
mod quota;
mod role;
mod seals;
