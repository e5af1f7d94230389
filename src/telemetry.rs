//! Log lines: tracing to standard error, as text for people or as JSON for machines.
//!
//! Commands call `init` once, after their configuration is resolved; everything else only uses
//! the `tracing` macros. No ambient `RUST_LOG` is read: the settings alone decide.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{LogFormat, LogSettings};

/// What reads and writes the bytes of a connection, where secrets still stand in the open.
const WIRE: [&str; 3] = ["h2", "hyper", "hyper_util"];

/// Where Postgres's notices go: below a warning they tell of everyday things, at every start for
/// example that the table of migrations is there already.
const NOTICES: &str = "sqlx::postgres::notice";

/// Why logging cannot begin.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The directives are invalid.
    #[error("invalid log directives")]
    Filter(#[from] ParseError),
    /// Another subscriber is installed in this process.
    #[error("logging has already begun in this process")]
    Installed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Begins to write log lines to standard error, for the rest of the process.
///
/// The crates that see raw bytes stay at `info` whatever is asked for, so that no level of
/// detail can put a secret into a log.
///
/// # Errors
/// [`TelemetryError`] when the directives are invalid or logging has begun already.
pub fn init(settings: &LogSettings) -> Result<(), TelemetryError> {
    let chosen = EnvFilter::builder().parse(settings.filter.as_str())?;
    // A filter of its own: among directives the most specific wins, so `h2::codec=trace` would undo `h2=info`.
    let bounded = filter_fn(|metadata| *metadata.level() <= most_detailed(metadata.target()));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let subscriber = tracing_subscriber::registry().with(chosen).with(bounded);
    let installed = match settings.format {
        LogFormat::Text => subscriber.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => subscriber.with(lines.json().with_ansi(false)).try_init(),
    };
    installed.map_err(|error| TelemetryError::Installed(Box::new(error)))
}

/// Returns the most detailed level that a target may have, whatever is asked for.
fn most_detailed(target: &str) -> Level {
    let root = target.split("::").next().unwrap_or_default();
    match target {
        NOTICES => Level::WARN,
        _ if WIRE.contains(&root) => Level::INFO,
        _ => Level::TRACE,
    }
}
