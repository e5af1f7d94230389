//! From flags, environment and file to the typed settings of one command. Commands call `resolve` once,
//! before anything else. Unsafe or meaningless combinations are refused here and nowhere later.

use std::net::SocketAddr;
use std::time::Duration;

use super::ConfigError;
use super::console::console;
use super::declared::Sources;
use super::environment::Environment;
use super::flags::{
    BootstrapFlags, DataFlags, DatabaseFlags, KeyStatusFlags, MigrateFlags, PrefixFlags, ServeFlags,
};
use super::integrations::integrations;
use super::links::check_otlp_endpoint;
use super::settings::{
    BootstrapSettings, DataSettings, DatabaseSettings, KeyStatusSettings, LogSettings, MigrateSettings,
    Migration, ServeSettings, Storage,
};
use super::tls::{certificates, tls_files};
use crate::domain::CertificateMappings;
use crate::jobs::retention::Retention;
use crate::secret::Prefix;
use crate::server::{Limits, Timeouts};
use crate::telemetry::Sampling;
use crate::transport::tls::TlsFiles;
use crate::verify::Bounds;

/// How often retention looks for what has to be warned of or deleted.
const RETENTION_INTERVAL: Duration = Duration::from_mins(5);

impl ServeFlags {
    /// Resolves the settings of serve and its storage, reading the configuration file and the keyring.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<(ServeSettings, Storage), ConfigError> {
        let mut sources = Sources::open(self.settings, environment)?;
        let log = sources.log()?;
        let Listening { listen, http_listen, tls, certificates, plaintext } = listening(&mut sources)?;
        let (otlp_endpoint, sampling) = tracing(&mut sources)?;
        let (storage, migration) = storage(&mut sources)?;
        let console = console(&mut sources, &storage, (tls.is_some(), plaintext))?;
        let settings = ServeSettings {
            integrations: integrations(&mut sources, http_listen, console.listen)?,
            console,
            sampling,
            otlp_endpoint,
            listen,
            http_listen,
            tls,
            certificates,
            config_file: sources.file_path(),
            limits: limits(&mut sources)?,
            database_connections: sources.database_connections()?.get().into(),
            migration,
            prefix: sources.prefix()?,
            cost: sources.cost()?,
            hash_permits: sources.hash_permits()?.map_or_else(processor_cores, |number| number.get().into()),
            drain_timeout: sources.drain_timeout()?.get(),
            bounds: Bounds {
                max_staleness: sources.max_staleness()?.get(),
                outage_grace: sources.outage_grace()?.get(),
            },
            cache_bytes: sources.cache_bytes()?.get(),
            last_use_interval: sources.last_use_interval()?.get(),
            retention: Retention {
                warnings: sources.expiry_warnings()?.get(),
                kept: sources.token_retention()?.get(),
                usage_hours: sources.usage_hours_retention()?.get(),
                usage_days: sources.usage_days_retention()?.get(),
                interval: RETENTION_INTERVAL,
            },
            require_fsync: !sources.allow_fsync_off()?,
            log,
        };
        sources.finish()?;
        Ok((settings, storage))
    }
}

impl BootstrapFlags {
    /// Resolves the settings of bootstrap, reading the configuration file and the keyring.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<BootstrapSettings, ConfigError> {
        let mut sources = Sources::open(self.settings, environment)?;
        let (database, keyring) = sources.database_and_keyring()?;
        let (log, cost) = (sources.log()?, sources.cost()?);
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
        let mut sources = Sources::open(self.settings, environment)?;
        sources.given_keyring()?;
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
        let mut sources = Sources::open(self.settings, environment)?;
        let (database, keyring) = sources.database_and_keyring()?;
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
        let mut sources = Sources::open(self.settings, environment)?;
        Ok(DataSettings { log: sources.log()?, data_dir: sources.data_directory()? })
    }
}

impl PrefixFlags {
    /// Resolves the prefix of secrets, reading the configuration file.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn resolve(self, environment: &Environment) -> Result<Prefix, ConfigError> {
        Sources::open(self.settings, environment)?.prefix()
    }
}

/// Where to listen, and whether with TLS.
struct Listening {
    listen: SocketAddr,
    http_listen: Option<SocketAddr>,
    tls: Option<TlsFiles>,
    certificates: CertificateMappings,
    /// Whether plaintext beyond this machine is allowed.
    plaintext: bool,
}

/// Resolves the listeners of gRPC and HTTP. Without TLS they have to be on loopback, unless plaintext is allowed.
fn listening(sources: &mut Sources<'_>) -> Result<Listening, ConfigError> {
    let listen = sources.listen()?;
    // A permission may stand in an environment that several processes share; a flag is for this one.
    let plaintext_flag = sources.flags.insecure_plaintext.is_some();
    let plaintext = sources.insecure_plaintext()?;
    let tls = tls_files(sources)?;
    ConfigError::demand("--insecure-plaintext", !plaintext_flag || tls.is_none(), "with --tls-certificate")?;
    let certificates = certificates(sources, tls.as_ref())?;
    let http_listen = sources.http_listen()?;
    for address in [Some(listen), http_listen].into_iter().flatten() {
        if tls.is_none() && !address.ip().to_canonical().is_loopback() && !plaintext {
            return Err(ConfigError::PlaintextExposed(address));
        }
    }
    Ok(Listening { listen, http_listen, tls, certificates, plaintext })
}

/// Resolves where tokens are stored, and who migrates the schema. A private Postgres has no operator, and no fsync
/// that is off.
fn storage(sources: &mut Sources<'_>) -> Result<(Storage, Migration), ConfigError> {
    let no_migrate = sources.no_migrate()?;
    let fsync_flag = sources.flags.allow_fsync_off.is_some();
    let storage = sources.storage()?;
    if matches!(storage, Storage::Private { .. }) {
        if no_migrate {
            return Err(ConfigError::NoMigrateWithoutDatabase);
        }
        ConfigError::demand("--allow-fsync-off", !fsync_flag, "without a database URL")?;
    }
    Ok((storage, if no_migrate { Migration::ByOperator } else { Migration::AtStart }))
}

/// Resolves the limits of the replica.
fn limits(sources: &mut Sources<'_>) -> Result<Limits, ConfigError> {
    Ok(Limits {
        connections: sources.max_connections()?.get().into(),
        streams: sources.max_streams()?.get().into(),
        calls: sources.max_calls()?.get().into(),
        response_memory_bytes: sources.response_memory_bytes()?.get().try_into().unwrap_or(usize::MAX),
        timeouts: timeouts(sources)?,
    })
}

/// Resolves the maximum age of connections; the other timeouts are fixed.
fn timeouts(sources: &mut Sources<'_>) -> Result<Timeouts, ConfigError> {
    let age = Some(sources.max_connection_age()?.get()).filter(|age| !age.is_zero());
    let age_grace = sources.max_connection_age_grace()?.get();
    let used = age.is_some() || !sources.is_given();
    ConfigError::demand("--max-connection-age-grace", used, "with --max-connection-age 0s")?;
    Ok(Timeouts { age, age_grace, ..Timeouts::default() })
}

/// Resolves the collector of spans, and the sampling.
fn tracing(sources: &mut Sources<'_>) -> Result<(Option<String>, Sampling), ConfigError> {
    let endpoint = sources.otlp_endpoint()?;
    let insecure_flag = sources.flags.otlp_insecure.is_some();
    let insecure = sources.otlp_insecure()?;
    let ratio = sources.trace_sample_ratio()?.get();
    if let Some(endpoint) = endpoint {
        check_otlp_endpoint(&endpoint, insecure)?;
        return Ok((Some(endpoint), Sampling::of(ratio)));
    }
    let why = "without --otlp-endpoint";
    ConfigError::demand("--trace-sample-ratio", !sources.is_given(), why)?;
    ConfigError::demand("--otlp-insecure", !insecure_flag, why)?;
    Ok((None, Sampling::off()))
}

fn processor_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
