//! tokend: API tokens as a gRPC service in front of Postgres.
//!
//! From the top down; each module imports only those below it (`.ci/layers` checks it):
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`], [`config`] | the commands; their flags, variables and file |
//! | [`server`], [`jobs`] | the composition root; background jobs |
//! | [`api`] | gRPC and HTTP: messages to domain and back, errors to statuses |
//! | [`auth`] | authentication of callers |
//! | [`tokens`], [`verify`] | the actions of callers; the engine that gives verdicts |
//! | [`changefeed`] | committed changes, for the cache and watchers |
//! | [`store`] | all SQL |
//! | [`transport`] | connections and TLS |
//! | [`admission`] | fair limiters, memory reservations, the hash pool |
//! | [`telemetry`], [`runtime`], [`metrics`] | logs and spans; tasks, panics, deadlines; metrics |
//! | [`private_postgres`] | the private Postgres of a server without a database URL |
//! | [`domain`], [`secret`] | the rules, as data and pure functions; the secret's text and its verifiers |
//! | [`clock`] | the clock and randomness |

// The futures of a call must be `Send` through every layer, from hyper to sqlx, which needs deep
// trait resolution.
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
pub mod jobs;
pub mod limits;
pub mod metrics;
pub mod private_postgres;
pub mod runtime;
pub mod secret;
pub mod server;
pub mod store;
pub mod telemetry;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod tokens;
pub mod transport;
pub mod usage;
pub mod verify;
