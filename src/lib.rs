//! tokend: API tokens as a gRPC service in front of Postgres.
//!
//! The map of the house, from the outside in; each floor calls only those below it:
//!
//! | module | what lives there |
//! |---|---|
//! | [`commands`] | `serve`, `bootstrap`, `keygen`, `migrate`, …: what `tokend` can be told to do |
//! | [`server`] | the one place that wires everything |
//! | [`grpc`] | messages to domain and back, callers, status codes |
//! | [`http`], [`ways`] | the HTTP listener; the ways in beside the RPCs, for gateways and standard clients |
//! | [`actions`], [`verify`], [`watch`], [`jobs`] | the use cases, the verification engine, what watchers are told, and what runs beside requests |
//! | [`store`] | all SQL |
//! | [`domain`] | the rules, as plain data and pure functions |
//! | [`secret`] | the secret's text and its two verifiers |
//!
//! Beside them: [`config`], [`telemetry`], [`embedded`] (the private Postgres of a first start),
//! [`listener`] and [`tls`] (the connections), [`private_file`] (who can read a secret's file), [`deadline`] and
//! [`provenance`] (what goes along with a call), [`shares`] (a fair part of the places for each caller),
//! [`hashing`] (a bounded place for Argon2id), [`supervision`] (tasks that must live), [`unread`] (the memory of answers until they are read),
//! [`requests`] (the memory of requests until they are answered), [`metrics`] (what is counted), [`panics`] (calls
//! whose work panics) and [`ambient`] (the clock and randomness).

// That the work of a call may move to another thread is asked of every layer around it, from hyper to sqlx.
#![recursion_limit = "256"]

#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod actions;
pub mod ambient;
pub mod commands;
pub mod config;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod deadline;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod domain;
pub mod embedded;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod grpc;
pub mod hashing;
pub mod http;
pub mod jobs;
pub mod limiter;
pub mod listener;
pub mod metrics;
mod notices;
pub mod panics;
pub mod private_file;
pub mod provenance;
pub mod requests;
pub mod secret;
pub mod server;
pub mod shares;
pub mod store;
pub mod supervision;
pub mod telemetry;
pub mod tls;
pub mod unread;
pub mod verify;
pub mod watch;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod ways;
