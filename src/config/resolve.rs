//! From flags, environment and file to the typed settings of one command. Commands call `resolve` once,
//! before anything else. Unsafe or meaningless combinations are refused here and nowhere later.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::ConfigError;
use super::console::console;
use super::environment::Environment;
use super::flags::{
    BootstrapFlags, DataFlags, DatabaseFlags, KeyStatusFlags, MigrateFlags, PrefixFlags, ServeFlags,
    SharedFlags,
};
use super::integrations::integrations;
use super::link_flags::TracingFlags;
use super::links::check_otlp_endpoint;
use super::settings::{
    BootstrapSettings, DataSettings, DatabaseSettings, KeyStatusSettings, LogSettings, MigrateSettings,
    Migration, ServeSettings, Storage,
};
use super::sources::Sources;
use super::tls::{certificates, tls_files};
use super::values::{
    CacheBytes, ConnectionAge, ExpiryWarnings, Millis, ResponseMemoryBytes, SampleRatio, TokenRetention,
};
use crate::jobs::retention::Retention;
use crate::secret::Prefix;
use crate::server::{Limits, Timeouts};
use crate::telemetry::Sampling;
use crate::verify::Bounds;

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);
const MAX_CONNECTIONS: usize = 2048;
const MAX_STREAMS: u32 = 256;
const MAX_CALLS: usize = 4096;
const RESPONSE_MEMORY_BYTES: u64 = 64 << 20;
const DATABASE_CONNECTIONS: u32 = 16;
const TRACE_SAMPLE_RATIO: f64 = 0.01;
const EXPIRY_WARNINGS: [Duration; 2] = [Duration::from_hours(24 * 7), Duration::from_hours(24)];
const TOKEN_RETENTION: Duration = Duration::from_hours(24 * 400);
const RETENTION_INTERVAL: Duration = Duration::from_mins(5);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_STALENESS: Duration = Duration::from_secs(1);
const CACHE_BYTES: u64 = 256 << 20;
const LAST_USE_INTERVAL: Duration = Duration::from_secs(30);

impl ServeFlags {
    /// Resolves the settings of serve and its storage, reading the configuration file and the keyring.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<(ServeSettings, Storage), ConfigError> {
        let mut sources = Sources::open(self.shared, environment)?;
        let log = sources.log()?;
        let listen =
            sources.choose(self.listen, "TOKEND_LISTEN", |file| file.listen.take())?.unwrap_or(LISTEN);
        let plaintext = sources.is_on(self.insecure_plaintext, "TOKEND_INSECURE_PLAINTEXT", |file| {
            file.insecure_plaintext.take()
        })?;
        let tls = tls_files(&mut sources, self.tls)?;
        // A permission may stand in an environment that several processes share; a flag is for this one.
        let used = !self.insecure_plaintext || tls.is_none();
        ConfigError::demand("--insecure-plaintext", used, "with --tls-certificate")?;
        let certificates = certificates(&mut sources, tls.as_ref())?;
        let http_listen =
            sources.choose(self.http_listen, "TOKEND_HTTP_LISTEN", |file| file.http_listen.take())?;
        for address in [Some(listen), http_listen].into_iter().flatten() {
            if tls.is_none() && !address.ip().to_canonical().is_loopback() && !plaintext {
                return Err(ConfigError::PlaintextExposed(address));
            }
        }
        let no_migrate =
            sources.is_on(self.no_migrate, "TOKEND_NO_MIGRATE", |file| file.no_migrate.take())?;
        let (otlp_endpoint, sampling) = tracing(&mut sources, self.tracing)?;
        let storage = sources.storage(self.data_dir)?;
        if matches!(storage, Storage::Embedded { .. }) {
            if no_migrate {
                return Err(ConfigError::NoMigrateWithoutDatabase);
            }
            ConfigError::demand("--allow-fsync-off", !self.allow_fsync_off, "without a database URL")?;
        }
        let console = console(&mut sources, self.console, &storage, (tls.is_some(), plaintext))?;
        let settings = ServeSettings {
            integrations: integrations(&mut sources, self.integrations, http_listen, console.listen)?,
            console,
            sampling,
            otlp_endpoint,
            listen,
            http_listen,
            tls,
            certificates,
            config_file: sources.file_path(),
            limits: Limits {
                connections: sources
                    .choose(self.max_connections, "TOKEND_MAX_CONNECTIONS", |file| {
                        file.max_connections.take()
                    })?
                    .map_or(MAX_CONNECTIONS, |number| number.get().into()),
                streams: sources
                    .choose(self.max_streams, "TOKEND_MAX_STREAMS", |file| file.max_streams.take())?
                    .map_or(MAX_STREAMS, |number| number.get().into()),
                calls: sources
                    .choose(self.max_calls, "TOKEND_MAX_CALLS", |file| file.max_calls.take())?
                    .map_or(MAX_CALLS, |number| number.get().into()),
                response_memory_bytes: sources
                    .choose(self.response_memory_bytes, "TOKEND_RESPONSE_MEMORY_BYTES", |file| {
                        file.response_memory_bytes.take()
                    })?
                    .map_or(RESPONSE_MEMORY_BYTES, ResponseMemoryBytes::get)
                    .try_into()
                    .unwrap_or(usize::MAX),
                timeouts: timeouts(&mut sources, self.max_connection_age, self.max_connection_age_grace)?,
            },
            database_connections: sources
                .choose(self.database_connections, "TOKEND_DATABASE_CONNECTIONS", |file| {
                    file.database_connections.take()
                })?
                .map_or(DATABASE_CONNECTIONS, |number| number.get().into()),
            migration: if no_migrate { Migration::ByOperator } else { Migration::AtStart },
            prefix: sources.prefix()?,
            cost: sources.cost(&self.cost)?,
            hash_permits: sources
                .choose(self.hash_permits, "TOKEND_HASH_PERMITS", |file| file.hash_permits.take())?
                .map_or_else(processor_cores, |number| number.get().into()),
            drain_timeout: sources
                .choose(self.drain_timeout, "TOKEND_DRAIN_TIMEOUT", |file| file.drain_timeout.take())?
                .map_or(DRAIN_TIMEOUT, Millis::get),
            bounds: Bounds {
                max_staleness: sources
                    .choose(self.max_staleness, "TOKEND_MAX_STALENESS", |file| file.max_staleness.take())?
                    .map_or(MAX_STALENESS, Millis::get),
                outage_grace: sources
                    .choose(self.outage_grace, "TOKEND_OUTAGE_GRACE", |file| file.outage_grace.take())?
                    .map_or(Duration::ZERO, Millis::get),
            },
            cache_bytes: sources
                .choose(self.cache_bytes, "TOKEND_CACHE_BYTES", |file| file.cache_bytes.take())?
                .map_or(CACHE_BYTES, CacheBytes::get),
            last_use_interval: sources
                .choose(self.last_use_interval, "TOKEND_LAST_USE_INTERVAL", |file| {
                    file.last_use_interval.take()
                })?
                .map_or(LAST_USE_INTERVAL, Millis::get),
            retention: retention(&mut sources, self.expiry_warnings, self.token_retention)?,
            require_fsync: !sources
                .is_on(self.allow_fsync_off, "TOKEND_ALLOW_FSYNC_OFF", |file| file.allow_fsync_off.take())?,
            log,
        };
        sources.finish()?;
        Ok((settings, storage))
    }
}

fn retention(
    sources: &mut Sources<'_>,
    warnings: Option<ExpiryWarnings>,
    kept: Option<TokenRetention>,
) -> Result<Retention, ConfigError> {
    Ok(Retention {
        warnings: sources
            .choose(warnings, "TOKEND_EXPIRY_WARNINGS", |file| file.expiry_warnings.take())?
            .map_or_else(|| EXPIRY_WARNINGS.to_vec(), ExpiryWarnings::get),
        kept: sources
            .choose(kept, "TOKEND_TOKEN_RETENTION", |file| file.token_retention.take())?
            .map_or(TOKEN_RETENTION, Millis::get),
        interval: RETENTION_INTERVAL,
    })
}

impl BootstrapFlags {
    /// Resolves the settings of bootstrap, reading the configuration file and the keyring.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<BootstrapSettings, ConfigError> {
        let mut sources = Sources::open(self.shared, environment)?;
        let (database, keyring) = sources.database_and_keyring(self.private.data_dir)?;
        let (log, cost) = (sources.log()?, sources.cost(&self.cost)?);
        sources.finish()?;
        Ok(BootstrapSettings { database, keyring, cost, log })
    }
}

impl MigrateFlags {
    /// Resolves the settings of migrate. A keyring, if given, is only checked, so that a deployment
    /// reports an error before it serves.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<MigrateSettings, ConfigError> {
        let Self { database, plan } = self;
        let (log, database) = database.resolve(environment)?;
        Ok(MigrateSettings { plan, database, log })
    }
}

impl DatabaseFlags {
    /// Resolves the database and the log settings. A keyring, if given, is only checked.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<(LogSettings, DatabaseSettings), ConfigError> {
        let mut sources = Sources::open(self.shared, environment)?;
        sources.keyring()?;
        let settings = (sources.log()?, sources.database()?);
        sources.finish()?;
        Ok(settings)
    }
}

impl KeyStatusFlags {
    /// Resolves the settings of key status, reading the configuration file and the keyring.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<KeyStatusSettings, ConfigError> {
        let mut sources = Sources::open(self.shared, environment)?;
        let (database, keyring) = sources.database_and_keyring(self.private.data_dir)?;
        let log = sources.log()?;
        sources.finish()?;
        Ok(KeyStatusSettings { database, keyring, log })
    }
}

impl DataFlags {
    /// Resolves the data directory, reading the configuration file.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<DataSettings, ConfigError> {
        let Self { config, data_dir } = self;
        let mut sources = Sources::open(SharedFlags { config, ..SharedFlags::default() }, environment)?;
        Ok(DataSettings { log: sources.log()?, data_dir: sources.data_dir(data_dir)? })
    }
}

impl PrefixFlags {
    /// Resolves the prefix of secrets, reading the configuration file.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<Prefix, ConfigError> {
        let Self { config, secret_prefix } = self;
        Sources::open(SharedFlags { config, secret_prefix, ..SharedFlags::default() }, environment)?.prefix()
    }
}

/// Resolves the maximum age of connections; the other timeouts are fixed.
fn timeouts(
    sources: &mut Sources<'_>,
    age: Option<ConnectionAge>,
    grace: Option<ConnectionAge>,
) -> Result<Timeouts, ConfigError> {
    let usual = Timeouts::default();
    let age = sources.choose(age, "TOKEND_MAX_CONNECTION_AGE", |file| file.max_connection_age.take())?;
    let grace = sources
        .choose(grace, "TOKEND_MAX_CONNECTION_AGE_GRACE", |file| file.max_connection_age_grace.take())?;
    let age = age.map_or(usual.age, |age| Some(age.get()).filter(|age| !age.is_zero()));
    let used = grace.is_none() || age.is_some();
    ConfigError::demand("--max-connection-age-grace", used, "with --max-connection-age 0s")?;
    Ok(Timeouts { age, age_grace: grace.map_or(usual.age_grace, Millis::get), ..usual })
}

/// Resolves the collector of spans, and the sampling.
fn tracing(
    sources: &mut Sources<'_>,
    flags: TracingFlags,
) -> Result<(Option<String>, Sampling), ConfigError> {
    let endpoint: Option<String> =
        sources.choose(flags.otlp_endpoint, "TOKEND_OTLP_ENDPOINT", |file| file.otlp_endpoint.take())?;
    let insecure =
        sources.is_on(flags.otlp_insecure, "TOKEND_OTLP_INSECURE", |file| file.otlp_insecure.take())?;
    let ratio: Option<SampleRatio> =
        sources.choose(flags.trace_sample_ratio, "TOKEND_TRACE_SAMPLE_RATIO", |file| {
            file.trace_sample_ratio.take()
        })?;
    if let Some(endpoint) = &endpoint {
        check_otlp_endpoint(endpoint, insecure)?;
    } else {
        let why = "without --otlp-endpoint";
        ConfigError::demand("--otlp-insecure", !flags.otlp_insecure, why)?;
        ConfigError::demand("--trace-sample-ratio", ratio.is_none(), why)?;
    }
    let ratio = ratio.map_or(TRACE_SAMPLE_RATIO, SampleRatio::get);
    let sampling = if endpoint.is_some() { Sampling::of(ratio) } else { Sampling::off() };
    Ok((endpoint, sampling))
}

fn processor_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
