//! The main functions, from outside: tokens are created, listed, revoked and verified over a real
//! socket, on a real Postgres.

mod create;
mod disable;
mod every_field;
mod extremes;
mod fields;
mod framing;
mod full;
pub(crate) mod get;
mod list;
mod networks;
mod pages;
mod plan_rpcs;
mod plans;
mod refused;
mod revoke;
mod scale;
mod update;
mod usage;
mod usage_answers;
mod users;
mod verify;
