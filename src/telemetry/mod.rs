//! Log lines to standard error, as text for people or as JSON for machines, and spans to a
//! collector if configured. Commands call `init` once their configuration is resolved; everything
//! else only uses the `tracing` macros. `RUST_LOG` is not read: the settings alone decide.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use serde::Deserialize;
use thiserror::Error;
use tracing::{Level, Span};
use tracing_subscriber::filter::{LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::runtime::panics;

pub(crate) mod authority;
mod context;
mod export;
mod lines;
pub(crate) mod notices;

pub use context::{Sampling, TraceContext};
use export::Exporter;
pub use lines::{log_left_out, should_log};

/// The log levels that a running server can be raised to.
const RAISED_LEVELS: [&str; 2] = ["tokend=debug", "tokend=trace"];

/// Crates that read and write the bytes of a connection, where secrets are in plain text.
const WIRE_CRATES: [&str; 3] = ["h2", "hyper", "hyper_util"];

/// The target of Postgres's notices. Below a warning they are routine: at every start, for example, that the
/// migrations table exists already. Warnings are never filtered out: the store depends on them.
const NOTICE_TARGET: &str = notices::TARGET;

/// Where h2 warns of PING acknowledgements that are not its own; they belong to
/// [`crate::transport::listener`].
const PING_TARGET: &str = "h2::proto::ping_pong";

/// Why logging cannot start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The directives are invalid.
    #[error("invalid log directives")]
    Filter(#[from] ParseError),
    /// The exporter could not be created.
    #[error(
        "spans cannot be exported: --otlp-endpoint, or the certificates that the system trusts, cannot be used"
    )]
    Exporter(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another subscriber is installed in this process.
    #[error("logging has already begun in this process")]
    Installed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Controls the telemetry of a running process.
#[derive(Debug)]
pub struct Telemetry {
    level: reload::Handle<EnvFilter, Registry>,
    chosen: String,
    more: AtomicUsize,
    exporter: Option<Exporter>,
}

/// Starts to write log lines to standard error for the rest of the process, and with an endpoint also
/// to export spans, for which it must be called within a runtime.
///
/// The crates that see raw bytes stay at `info` even if more is asked for, so that no level can put a
/// secret into a log.
///
/// # Errors
/// [`TelemetryError`] when the directives or the endpoint are invalid or logging has already started.
pub fn init(
    format: LogFormat,
    directives: &str,
    otlp_endpoint: Option<&str>,
) -> Result<Telemetry, TelemetryError> {
    let (chosen, level) = reload::Layer::new(filter(directives, None)?);
    // A separate filter: among directives the most specific wins, so `h2::codec=trace` would
    // override `h2=info`.
    let bounded = filter_fn(|metadata| *metadata.level() <= most_detailed(metadata.target()));
    let written = io::stderr.with_filter(|metadata| !authority::is_authority_error(metadata));
    let lines = tracing_subscriber::fmt::layer().with_writer(written);
    let (exporter, tracer) = otlp_endpoint.map(Exporter::start).transpose()?.unzip();
    // Spans of calls, but none of the crates that would export them.
    let spans = tracer.map(|tracer| {
        let own = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("tokend"));
        // Without the hint, and with a layer above that has none, the filter would run for every
        // event of every crate.
        let own = own.with_max_level_hint(LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_filter(own)
    });
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().with_ansi(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(chosen).with(bounded);
    // Below the spans: above a layer with its own filter, it would run for every event of every crate.
    let subscriber = subscriber.with(notices::NoticeLayer).with(authority::AuthorityErrorLayer);
    let installed = subscriber.with(lines).with(spans).try_init();
    installed.map_err(|error| TelemetryError::Installed(Box::new(error)))?;
    panics::record_locations();
    let chosen = directives.to_owned();
    Ok(Telemetry { level, chosen, more: AtomicUsize::new(0), exporter })
}

impl Telemetry {
    /// Raises tokend's own log level by one step: debug, then trace.
    pub fn log_more(&self) {
        let step = self.more.fetch_add(1, Ordering::Relaxed).min(RAISED_LEVELS.len() - 1);
        self.set(Some(RAISED_LEVELS[step]));
    }

    /// Resets the log level to the configured one.
    pub fn log_as_configured(&self) {
        self.more.store(0, Ordering::Relaxed);
        self.set(None);
    }

    /// Sends the last spans; takes at most 5 seconds, and blocks.
    pub fn end(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.end();
        }
    }

    fn set(&self, more: Option<&str>) {
        // Both were parsed before; a failure would leave the level as it is.
        if let Ok(filter) = filter(&self.chosen, more)
            && self.level.reload(filter).is_ok()
        {
            tracing::info!(directives = more.unwrap_or(&self.chosen), "the log level was changed");
        }
    }
}

/// Returns how many spans this process has exported since the last call, and how many were lost
/// because the collector did not accept them.
#[must_use]
pub fn take_export_counts() -> (u64, u64) {
    export::take_counts()
}

/// Puts a call's span into its trace, if spans are exported.
pub fn adopt(span: &Span, context: &TraceContext, sampling: Sampling) {
    if sampling.exports() {
        export::adopt(span, context);
    }
}

fn filter(chosen: &str, more: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let mut filter = EnvFilter::builder().parse(chosen)?;
    for overheard in [format!("{NOTICE_TARGET}=warn"), format!("{}=debug", authority::TARGET)] {
        filter = filter.add_directive(overheard.parse()?);
    }
    if let Some(directive) = more {
        filter = filter.add_directive(directive.parse()?);
    }
    Ok(filter)
}

/// Returns the most detailed level that a target may have, even if more is asked for.
fn most_detailed(target: &str) -> Level {
    let root = target.split("::").next().unwrap_or_default();
    match target {
        NOTICE_TARGET => Level::WARN,
        PING_TARGET => Level::ERROR,
        authority::TARGET => Level::DEBUG,
        _ if WIRE_CRATES.contains(&root) => Level::INFO,
        _ => Level::TRACE,
    }
}
