//! The guarantee of the verification engine, tested on a real Postgres: every replica sees each
//! change in time, whatever fails, and what cannot be known is UNAVAILABLE. `setup` has the shared
//! helpers, `fleet` runs replicas as processes. `TOKEND_LONG=1` runs the long forms, which also
//! measure.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

#[expect(dead_code, reason = "this suite uses its part")]
#[path = "../tls/authority.rs"]
mod authority;

mod acknowledged;
mod attacks;
mod cached;
mod clock;
mod disabled_users;
mod failover;
mod fault_test;
mod feed;
mod fleet;
mod floods;
mod forms;
mod grace;
mod hold;
mod limit_count;
mod limit_faults;
mod limit_holders;
mod limit_load;
mod outages;
mod poison;
mod pooler;
mod race;
mod restarts;
mod revocations;
mod servers;
mod setup;
mod standby;
mod stream;
mod unauthenticated;
mod unrecorded;
mod witness;
mod workers;
