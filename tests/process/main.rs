//! The built program, driven from outside as its users do: by command line, environment, signals
//! and gRPC. `program` runs it, `rpc` calls it, `databases` provides a shared Postgres.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auditor;
mod canary;
mod commands;
mod data_upgrade;
mod database_urls;
mod databases;
mod flags;
mod life;
#[cfg(target_os = "linux")]
mod listening;
mod listings;
mod operator;
mod outputs;
mod private_postgres;
mod program;
mod reaching;
mod recovery;
mod refusals;
mod refused_unread;
mod reloads;
mod replica;
mod request_memory;
mod rpc;
mod telemetry;
mod unauthenticated;
mod unfit;
mod versions;

#[path = "../support/cluster.rs"]
mod cluster;
