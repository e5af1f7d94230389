//! Watching from outside: every change is reported, in order, to the callers that may see it,
//! across restarts, too.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod changes;
mod positions;
mod servers;
mod watcher;
