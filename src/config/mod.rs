//! Configuration: flags, then the environment, then a TOML file, then defaults. Called by the
//! commands alone: `resolve` turns a command's flags into its settings and parses every value once.
//! Accesses no database and no socket, and no error contains a password, a key or a secret.

mod address;
mod client;
mod console;
mod database_tls;
mod database_uri;
mod database_url;
mod declared;
mod durations;
mod environment;
mod error;
mod file;
mod flags;
mod integrations;
mod keyring;
mod links;
mod network_values;
mod precedence;
mod resolve;
mod setting;
mod settings;
mod sources;
mod tls;
mod values;

pub use address::{AddressSettings, CallerSecret, caller_secret};
pub use database_tls::TlsFilesProblem;
pub use database_url::DatabaseUrlProblem;
pub use durations::{DisplayDuration, DurationProblem, parse_duration};
pub use environment::{Account, Environment};
pub use error::{ConfigError, KeyringOrigin};
pub use flags::{
    AddressFlag, BootstrapFlags, DataFlags, DatabaseFlags, KeyStatusFlags, MigrateFlags, PrefixFlags,
    ServeFlags,
};
pub use keyring::read_keyring;
pub use network_values::TrustedProxies;
pub use settings::{
    BootstrapSettings, ConsoleSettings, DataSettings, DatabaseSettings, DatabaseTarget, KeyStatusSettings,
    LogSettings, MigrateSettings, Migration, ServeSettings, Storage,
};
pub use tls::read_certificates;
pub use values::{
    CacheBytes, DrainTimeout, ExpiryWarnings, LastUseInterval, LogFilter, MaxStaleness, OutageGrace,
    ResponseMemoryBytes, SampleRatio, Switch, TokenRetention, UsageRetention, ValueError,
};

#[cfg(test)]
mod tests;
