//! The TOML file of `--config`: the same names as the flags, without the leading dashes. Read by
//! `resolve` once per command. An unknown key is an error, so that a misspelt setting never
//! silently keeps its default. Paths are relative to the file's directory.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::ConfigError;
use super::database_url::DatabaseUrl;
use super::values::{
    CacheBytes, ConnectionAge, ConsoleListen, DatabasePooling, DrainTimeout, ExpiryWarnings, LastUseInterval,
    LogFilter, MaxStaleness, OutageGrace, ResponseMemoryBytes, SampleRatio, Switch, TokenRetention,
    TrustedProxies,
};
use crate::secret::private_file::is_exposed;
use crate::telemetry::LogFormat;

/// The settings of a configuration file; all are optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FileSettings {
    pub(super) listen: Option<SocketAddr>,
    pub(super) http_listen: Option<SocketAddr>,
    pub(super) console_listen: Option<ConsoleListen>,
    pub(super) console_origin: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) database_url: Option<DatabaseUrl>,
    pub(super) direct_database_url: Option<DatabaseUrl>,
    pub(super) database_password_file: Option<PathBuf>,
    pub(super) database_pooling: Option<DatabasePooling>,
    pub(super) database_insecure: Option<Switch>,
    pub(super) database_connections: Option<NonZeroU16>,
    pub(super) keyring: Option<PathBuf>,
    pub(super) secret_prefix: Option<String>,
    pub(super) argon2_memory_kib: Option<u32>,
    pub(super) argon2_iterations: Option<u32>,
    pub(super) argon2_parallelism: Option<u32>,
    pub(super) hash_permits: Option<NonZeroU16>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_level: Option<LogFilter>,
    pub(super) no_migrate: Option<Switch>,
    pub(super) insecure_plaintext: Option<Switch>,
    pub(super) drain_timeout: Option<DrainTimeout>,
    pub(super) max_staleness: Option<MaxStaleness>,
    pub(super) outage_grace: Option<OutageGrace>,
    pub(super) cache_bytes: Option<CacheBytes>,
    pub(super) last_use_interval: Option<LastUseInterval>,
    pub(super) allow_fsync_off: Option<Switch>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) tls_client_crl: Option<PathBuf>,
    pub(super) max_connections: Option<NonZeroU16>,
    pub(super) max_streams: Option<NonZeroU16>,
    pub(super) max_calls: Option<NonZeroU16>,
    pub(super) response_memory_bytes: Option<ResponseMemoryBytes>,
    pub(super) max_connection_age: Option<ConnectionAge>,
    pub(super) max_connection_age_grace: Option<ConnectionAge>,
    pub(super) expiry_warnings: Option<ExpiryWarnings>,
    pub(super) token_retention: Option<TokenRetention>,
    pub(super) otlp_endpoint: Option<String>,
    pub(super) otlp_insecure: Option<Switch>,
    pub(super) trace_sample_ratio: Option<SampleRatio>,
    pub(super) trusted_proxies: Option<TrustedProxies>,
    pub(super) gateway_organization: Option<String>,
    pub(super) identity_header_prefix: Option<String>,
    pub(super) ext_authz: Option<Switch>,
    pub(super) grpc_web_origins: Option<String>,
    pub(super) token_review: Option<String>,
    pub(super) token_review_audiences: Option<String>,
    #[serde(default)]
    pub(super) client_certificate: Vec<ClientCertificate>,
}

/// What clients with a certificate of this name may do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ClientCertificate {
    pub(super) name: String,
    pub(super) scopes: Vec<String>,
    pub(super) organization: Option<String>,
}

impl FileSettings {
    /// Reads and parses a configuration file.
    ///
    /// # Errors
    /// [`ConfigError::FileUnreadable`]; [`ConfigError::FileInvalid`] with line and unknown key;
    /// [`ConfigError::FileExposed`] when it holds a database password that others may read.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::FileUnreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let exposed = is_exposed(&file.metadata().map_err(unreadable)?);
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(unreadable)?;
        let mut settings: Self = toml::from_str(&text).map_err(|error| invalid(path, &text, &error))?;
        let urls = [&settings.database_url, &settings.direct_database_url];
        if exposed && urls.into_iter().flatten().any(DatabaseUrl::has_password) {
            return Err(ConfigError::FileExposed(path.to_owned()));
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let paths = [
            &mut settings.data_dir,
            &mut settings.keyring,
            &mut settings.database_password_file,
            &mut settings.tls_certificate,
            &mut settings.tls_key,
            &mut settings.tls_client_ca,
            &mut settings.tls_client_crl,
        ];
        for relative in paths {
            *relative = relative.take().map(|path| directory.join(path));
        }
        Ok(settings)
    }
}

/// Uses only the parser's message and the line number: its full text would quote the line.
fn invalid(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    ConfigError::FileInvalid {
        path: path.to_owned(),
        line: before.map_or(1, |before| before.matches('\n').count() + 1),
        message: error.message().to_owned(),
    }
}
