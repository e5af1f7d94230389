//! The servers to compare with tokend, each a separate process: this program, started as a server by an
//! environment variable. All of them use tonic, with the same settings, the same messages and the same
//! allocator.

pub(crate) mod argon2;
mod canned;
pub(crate) mod ceiling;
pub(crate) mod select;
pub(crate) mod update;
mod valkey;

use std::env;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::canned::{Canned, Replies};

/// The environment variable with the role of a process.
pub(crate) const ROLE: &str = "TOKEND_BENCH_ROLE";
/// The environment variable with its listen address.
pub(crate) const LISTEN: &str = "TOKEND_BENCH_LISTEN";
/// The environment variable with the ceiling's response, in hexadecimal digits.
pub(crate) const REPLY: &str = "TOKEND_BENCH_REPLY";
/// The environment variable with the hash, in hexadecimal digits, that the Argon2id server checks.
pub(crate) const DURABLE_HASH: &str = "TOKEND_BENCH_DURABLE_HASH";
/// The environment variable with the address of Valkey.
pub(crate) const VALKEY: &str = "TOKEND_BENCH_VALKEY";

/// Serves in a role until the process is ended.
pub(crate) fn run(role: &str) -> anyhow::Result<()> {
    Runtime::new()?.block_on(async {
        match role {
            "ceiling" => serve(ceiling::Ceiling::from_environment()?).await,
            "select" => serve(select::Select::from_environment()?).await,
            "update" => serve(update::Update::from_environment()?).await,
            "valkey" => serve(valkey::Valkey::from_environment().await?).await,
            "argon2" => serve(argon2::Argon2::from_environment()?).await,
            other => bail!("there is no role {other}"),
        }
    })
}

async fn serve(replies: impl Replies) -> anyhow::Result<()> {
    let listener = TcpListener::bind(variable(LISTEN)?).await?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(Canned::new(replies)).serve_with_incoming(incoming).await?)
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is not set"))
}
