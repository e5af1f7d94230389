//! More load than a replica can serve: the excess is refused early, and no client starves another.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod connections;
mod honest;
mod hostile;
mod networks;
mod revocations;
mod shares;
mod slow;
mod unread;
