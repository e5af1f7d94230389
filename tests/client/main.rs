//! The client crate from outside, on real servers and a real Postgres: its calls, its guards, and
//! the promise of the local verifier, whatever is cut, delayed, frozen or lagging.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../tls/authority.rs"]
mod authority;
#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../engine/fleet.rs"]
mod fleet;
#[path = "../engine/hold.rs"]
mod hold;
#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../engine/setup.rs"]
mod setup;

mod asking;
mod calls;
mod events;
mod guards;
mod local;
mod multiplexed;
mod own_secret;
mod pauses;
mod policies;
mod promise;
mod refused;
mod rules;
mod tls;
