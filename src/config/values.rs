//! Setting types that the standard library lacks: each parses once, with its bounds.
//!
//! Used by flags, environment and file alike, so that a value is judged by the same rule
//! wherever it stands. Errors do not repeat the value.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// Why a text is not the value of its setting.
#[derive(Debug, Error)]
pub enum ValueError {
    /// Not one of the log formats.
    #[error("expected text or json")]
    LogFormat,
    /// Not a list of tracing directives.
    #[error("expected log directives such as info or warn,tokend=debug")]
    LogFilter,
    /// Not a duration, or a longer one than is allowed.
    #[error("expected a duration of at most 10 s, such as 10s or 500ms")]
    DrainTimeout,
    /// Not a truth value.
    #[error("expected true or false")]
    Switch,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
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

/// Which log lines are written: tracing directives such as `info` or `warn,tokend=debug`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LogFilter(String);

impl LogFilter {
    /// Returns the directives as they were given, known to be valid.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DrainTimeout(Duration);

impl DrainTimeout {
    /// The longest drain, and the default.
    pub const MAX: Duration = Duration::from_secs(10);

    /// Returns the time.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for DrainTimeout {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

impl FromStr for DrainTimeout {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match humantime::parse_duration(text) {
            Ok(time) if time <= Self::MAX => Ok(Self(time)),
            _ => Err(ValueError::DrainTimeout),
        }
    }
}

impl TryFrom<String> for DrainTimeout {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

/// A truth value of the environment: `true` or `1`, `false` or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Switch(bool);

impl Switch {
    /// Makes the switch that a flag given on the command line means; absent flags say nothing.
    #[must_use]
    pub fn of_flag(given: bool) -> Option<Self> {
        given.then_some(Self(true))
    }

    /// Tells whether it is on.
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
