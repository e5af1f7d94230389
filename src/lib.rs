//! tokend: API tokens as a gRPC service in front of Postgres.
//!
//! From the top down; each module imports only those below it (`.ci/layers` checks it):
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`], [`config`] | the commands; their flags, variables and file |
//! | [`server`], [`jobs`] | the one place that wires everything; what runs beside requests |
//! | [`api`] | gRPC and HTTP: messages to domain and back, errors to statuses |
//! | [`auth`] | who calls |
//! | [`tokens`], [`verify`] | the use cases; the engine that gives verdicts |
//! | [`changefeed`] | what has changed, for the cache and for watchers |
//! | [`store`] | all SQL |
//! | [`transport`] | connections and TLS |
//! | [`admission`] | fair shares, memory that is reserved, the hash pool |
//! | [`telemetry`], [`runtime`], [`metrics`] | logs and spans; supervised tasks, panics, deadlines; what is counted |
//! | [`embedded`] | the private Postgres of a first start |
//! | [`domain`], [`secret`] | the rules, as plain data and pure functions; the secret's text and its verifiers |
//! | [`clock`] | the clock and randomness |

// That the work of a call may move to another thread is asked of every layer around it, from hyper to sqlx.
#![recursion_limit = "256"]

pub mod admission;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod api;
pub mod auth;
pub mod changefeed;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod domain;
pub mod embedded;
pub mod jobs;
pub mod metrics;
pub mod runtime;
pub mod secret;
pub mod server;
pub mod store;
pub mod telemetry;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod tokens;
pub mod transport;
pub mod verify;
