//! What callers see while Postgres is missing, silent or broken, and while a replica shuts down:
//! UNAVAILABLE, never a wrong verdict, and an end of the replica or of a connection that loses no
//! call.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod age;
mod database;
mod deadline;
mod drain;
mod standby;
