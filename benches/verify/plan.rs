//! The settings of a run, from environment variables, with defaults that take a few minutes.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::servers::TOKEND;

/// The sizes of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The number of tokens in each table besides the requested ones.
    pub(crate) tables: Vec<u32>,
    /// The table for all measurements; on the others only those that depend on the table's size.
    pub(crate) main_table: u32,
    pub(crate) rounds: usize,
    /// The number of rounds of an overload.
    pub(crate) overload_rounds: usize,
    /// How long each division of the limits' load is measured.
    pub(crate) limits_duration: Duration,
    /// How long each scenario is measured in each round, and its warm-up time.
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    /// How many tokens are requested.
    pub(crate) verified: u32,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    /// How many requests of a `VerifyStream` are in flight, over all of its connections.
    pub(crate) stream_in_flight: usize,
    /// Scenarios to measure; empty: all.
    pub(crate) only: Vec<String>,
    /// Another build of tokend to compare with, or this one with other settings.
    pub(crate) other: Option<PathBuf>,
    pub(crate) other_settings: Vec<(String, String)>,
    /// The directory of Postgres and its data, kept for the next run; `None`: removed after this one.
    pub(crate) data: Option<PathBuf>,
    /// The directory for the tables and plots.
    pub(crate) output: PathBuf,
}

impl Plan {
    /// Reads the plan from the environment.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let tables = list("TOKEND_BENCH_TABLES", "10000,1000000");
        let tables = tables.iter().map(|size| number(size)).collect::<anyhow::Result<Vec<u32>>>()?;
        let Some(&main_table) = tables.get(1).or(tables.first()) else { bail!("there is no table") };
        let settings = text("TOKEND_BENCH_OTHER_SETTINGS", "");
        let other_settings: Vec<_> = settings
            .split_whitespace()
            .filter_map(|setting| setting.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let other = env::var_os("TOKEND_BENCH_OTHER").map(PathBuf::from);
        let plan = Self {
            tables,
            main_table,
            rounds: setting("TOKEND_BENCH_ROUNDS", "15")?,
            overload_rounds: setting("TOKEND_BENCH_OVERLOAD_ROUNDS", "7")?,
            limits_duration: Duration::from_secs(setting("TOKEND_BENCH_LIMITS_SECONDS", "20")?),
            duration: Duration::from_millis(setting("TOKEND_BENCH_MILLISECONDS", "400")?),
            warm_up: Duration::from_millis(100),
            verified: setting("TOKEND_BENCH_VERIFIED", "100000")?,
            connections: setting("TOKEND_BENCH_CONNECTIONS", "4")?,
            in_flight: setting("TOKEND_BENCH_IN_FLIGHT", "100")?,
            stream_in_flight: setting("TOKEND_BENCH_STREAM_IN_FLIGHT", "1000")?,
            only: list("TOKEND_BENCH_ONLY", ""),
            other: other.or((!other_settings.is_empty()).then(|| TOKEND.into())),
            other_settings,
            data: env::var_os("TOKEND_BENCH_DATA").map(PathBuf::from),
            output: env::var_os("TOKEND_BENCH_OUTPUT").map_or_else(default_output, PathBuf::from),
        };
        ensure!(plan.rounds > 0 && plan.verified > 0 && plan.connections > 0, "a plan of nothing");
        ensure!(plan.in_flight >= plan.connections, "each connection needs a call");
        Ok(plan)
    }

    /// Returns the other build; `None` if it is this one with other settings.
    pub(crate) fn other_build(&self) -> Option<&Path> {
        self.other.as_deref().filter(|other| *other != Path::new(TOKEND))
    }

    /// Returns whether a scenario is measured.
    pub(crate) fn includes(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| scenario.contains(wanted.as_str()))
    }
}

fn default_output() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/verify-bench"))
}

fn text(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn list(name: &str, default: &str) -> Vec<String> {
    text(name, default)
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
    default: &str,
) -> anyhow::Result<T> {
    text(name, default).parse().with_context(|| format!("{name} is not a number"))
}

fn number(text: &str) -> anyhow::Result<u32> {
    text.parse().with_context(|| format!("{text} is not a number of tokens"))
}
