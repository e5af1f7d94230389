//! Log lines: tracing to standard error, as text for people or as JSON for machines.
//!
//! Commands call `init` once, after their configuration is resolved; everything else only uses
//! the `tracing` macros. No ambient `RUST_LOG` is read: the settings alone decide.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, ParseError};

use crate::config::{LogFormat, LogSettings};

/// What reads and writes the bytes of a connection, where secrets still stand in the open.
const WIRE: [&str; 3] = ["h2=info", "hyper=info", "hyper_util=info"];

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
    let mut filter = EnvFilter::builder().parse(settings.filter.as_str())?;
    for directive in WIRE {
        filter = filter.add_directive(directive.parse::<Directive>()?);
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let installed = match settings.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    installed.map_err(TelemetryError::Installed)
}
