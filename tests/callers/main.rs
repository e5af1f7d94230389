//! Authorization, from outside: every RPC needs a valid credential, and allows no more than the
//! credential's scopes and organization.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod credentials;
mod methods;
mod networks;
mod open;
mod organizations;
mod privileges;
mod scopes;
