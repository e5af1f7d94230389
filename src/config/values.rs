//! Setting types that the standard library lacks: each parses once, with its bounds. Used by flags,
//! environment and file alike, so that the same rule applies in each. Errors do not repeat the value.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use super::durations::{DisplayDuration, DurationProblem, parse_duration};
use crate::secret::{Keyring, KeyringError};
use crate::store::PoolerMode;
use crate::telemetry::LogFormat;

/// Why a text is not the value of its setting.
#[derive(Debug, Error)]
pub enum ValueError {
    /// Not one of the log formats.
    #[error("expected text or json")]
    LogFormat,
    /// Not one of the pooling modes.
    #[error("expected session or transaction")]
    DatabasePooling,
    /// Not a list of tracing directives.
    #[error("expected log directives such as info or warn,tokend=debug")]
    LogFilter,
    /// Not a duration.
    #[error(transparent)]
    Duration(#[from] DurationProblem),
    /// A duration that is out of range.
    #[error("expected a duration from {min} to {max}, such as 10s or 500ms")]
    DurationRange {
        /// The shortest allowed.
        min: DisplayDuration,
        /// The longest allowed.
        max: DisplayDuration,
    },
    /// Not a number of bytes, or too few.
    #[error("expected a number of bytes, at least {min}")]
    Bytes {
        /// The fewest allowed.
        min: u64,
    },
    /// Too many durations.
    #[error("expected at most eight durations separated by commas, such as 7d,1d")]
    ExpiryWarnings,
    /// Not a ratio.
    #[error("expected a number from 0 to 1, such as 0.01")]
    SampleRatio,
    /// Not networks, or one that is far too wide.
    #[error("expected networks separated by commas, such as 10.0.0.0/8,192.0.2.7/32, none wider than /8")]
    TrustedProxies,
    /// Not an address, and not off.
    #[error("expected IP:PORT, such as 127.0.0.1:50080, or off")]
    ConsoleListen,
    /// Not a boolean.
    #[error("expected true or false")]
    Switch,
}

impl FromStr for LogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ValueError::LogFormat),
        }
    }
}

/// What an open connection to the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum DatabasePooling {
    /// A session: no pooler, or one in session mode.
    Session,
    /// One session in each transaction: a pooler in transaction mode.
    Transaction,
}

impl DatabasePooling {
    /// Returns the store's equivalent.
    pub(super) fn get(self) -> PoolerMode {
        match self {
            Self::Session => PoolerMode::Session,
            Self::Transaction => PoolerMode::Transaction,
        }
    }
}

impl FromStr for DatabasePooling {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "session" => Ok(Self::Session),
            "transaction" => Ok(Self::Transaction),
            _ => Err(ValueError::DatabasePooling),
        }
    }
}

/// The log filter: tracing directives such as `info` or `warn,tokend=debug`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LogFilter(String);

impl LogFilter {
    /// Returns the directives as given; they are valid.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogFilter {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match EnvFilter::try_new(text) {
            Ok(_) if !text.trim().is_empty() => Ok(Self(text.to_owned())),
            _ => Err(ValueError::LogFilter),
        }
    }
}

impl TryFrom<String> for LogFilter {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

/// How long running RPCs may take to finish after the first SIGTERM: 0 to 10 s.
pub type DrainTimeout = Millis<0, 10_000>;

/// The maximum age of a connection, or the grace of its calls after that: 0 to 24 h.
pub(super) type ConnectionAge = Millis<0, 86_400_000>;

/// How stale a response from the cache may be: 50 ms to 60 s.
pub type MaxStaleness = Millis<50, 60_000>;

/// How much longer a cached VALID may be used in an outage of the database: 0 to 1 h.
pub type OutageGrace = Millis<0, 3_600_000>;

/// How often the last use of tokens is written: 100 ms to 1 h.
pub type LastUseInterval = Millis<100, 3_600_000>;

/// How long an expired or revoked token is kept: 1 to 3650 days.
pub type TokenRetention = Millis<86_400_000, 315_360_000_000>;

/// How long counts of verifications are kept: 4 to 3650 days.
pub type UsageRetention = Millis<345_600_000, 315_360_000_000>;

/// How long before its expiration a token gets a warning: up to eight durations of 1 minute to 365 days.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ExpiryWarnings(Vec<Duration>);

impl ExpiryWarnings {
    /// Returns the durations.
    #[must_use]
    pub fn get(self) -> Vec<Duration> {
        self.0
    }
}

impl FromStr for ExpiryWarnings {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parsed = text.split(',').map(|part| part.trim().parse::<Millis<60_000, 31_536_000_000>>());
        let durations = parsed.map(|part| part.map(Millis::get)).collect::<Result<Vec<_>, _>>()?;
        if durations.len() <= 8 { Ok(Self(durations)) } else { Err(ValueError::ExpiryWarnings) }
    }
}

impl TryFrom<String> for ExpiryWarnings {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

/// A duration of `MIN` to `MAX` milliseconds, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Millis<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> Millis<MIN, MAX> {
    /// Returns the duration.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Millis<MIN, MAX> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        let time = parse_duration(text)?;
        if (min..=max).contains(&time) {
            Ok(Self(time))
        } else {
            Err(ValueError::DurationRange { min: DisplayDuration(min), max: DisplayDuration(max) })
        }
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<String> for Millis<MIN, MAX> {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

/// A number of bytes, at least `MIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Bytes<const MIN: u64>(u64);

/// The most bytes that the cache may take: at least a mebibyte.
pub type CacheBytes = Bytes<{ 1 << 20 }>;

/// The most bytes of unread responses: at least four of the longest pages, so that one caller gets two.
pub type ResponseMemoryBytes = Bytes<{ 10 << 20 }>;

impl<const MIN: u64> Bytes<MIN> {
    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64> TryFrom<u64> for Bytes<MIN> {
    type Error = ValueError;

    fn try_from(bytes: u64) -> Result<Self, ValueError> {
        if bytes >= MIN { Ok(Self(bytes)) } else { Err(ValueError::Bytes { min: MIN }) }
    }
}

impl<const MIN: u64> FromStr for Bytes<MIN> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::Bytes { min: MIN }).and_then(|bytes: u64| bytes.try_into())
    }
}

/// A ratio from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct SampleRatio(f64);

impl SampleRatio {
    /// Returns the number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for SampleRatio {
    type Error = ValueError;

    fn try_from(ratio: f64) -> Result<Self, ValueError> {
        if (0.0..=1.0).contains(&ratio) { Ok(Self(ratio)) } else { Err(ValueError::SampleRatio) }
    }
}

impl FromStr for SampleRatio {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError::SampleRatio).and_then(|ratio: f64| ratio.try_into())
    }
}

/// A boolean of the environment: `true` or `1`, `false` or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Switch(bool);

impl Switch {
    /// Returns whether it is on.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.0
    }
}

impl FromStr for Switch {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "true" | "1" => Ok(Self(true)),
            "false" | "0" => Ok(Self(false)),
            _ => Err(ValueError::Switch),
        }
    }
}

/// The text of a keyring; it is parsed where the keyring is needed. No `Debug`, and erased.
#[derive(Clone)]
pub(super) struct KeyringText(SecretString);

impl FromStr for KeyringText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.into()))
    }
}

impl KeyringText {
    /// Parses it.
    pub(super) fn parse(&self) -> Result<Keyring, KeyringError> {
        Keyring::parse(self.0.expose_secret())
    }
}
