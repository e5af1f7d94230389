//! Resolves the address that a command calls, and the secret of its caller, from flags and environment. Used by all
//! commands that call a running tokend.

use std::path::PathBuf;

use secrecy::SecretString;

use super::ConfigError;
use super::client::{PartialSettings, Sources};
use super::environment::Environment;
use super::flags::AddressFlag;

/// The address of a running tokend.
pub struct AddressSettings {
    /// Its URL.
    pub url: String,
    /// Where the URL is from, for error messages.
    pub origin: &'static str,
    /// Whether another host may be called without TLS.
    pub insecure: bool,
    /// The file with the CA of its certificate, if one is given.
    pub ca: Option<PathBuf>,
}

/// Where a command has its caller's secret from.
pub enum CallerSecret {
    /// The environment.
    Text(SecretString),
    /// This file.
    File(PathBuf),
}

impl AddressFlag {
    /// Takes the flags, else the environment, else the default.
    ///
    /// # Errors
    /// [`ConfigError`]: a variable is invalid, or a flag has no effect.
    pub fn resolve(self, environment: &Environment) -> Result<AddressSettings, ConfigError> {
        let mut sources = Sources::new(self.settings, environment);
        let url = sources.address()?;
        let origin =
            sources.origin.unwrap_or("the default; set another one with --address or TOKEND_ADDRESS");
        let encrypted = url.starts_with("https://");
        let used = sources.flags.address_insecure.is_none() || !encrypted;
        ConfigError::demand("--address-insecure", used, "with an https:// address")?;
        let insecure = sources.address_insecure()?;
        // The variable may stand in an environment that several addresses share.
        let ca = if encrypted { sources.ca()? } else { sources.flags.ca.take() };
        Ok(AddressSettings { url, origin, insecure, ca })
    }
}

/// Returns where the caller's secret is, if it is given: `TOKEND_SECRET` wins over `TOKEND_SECRET_FILE`.
///
/// # Errors
/// [`ConfigError::VariableNotText`].
pub fn caller_secret(environment: &Environment) -> Result<Option<CallerSecret>, ConfigError> {
    let mut sources = Sources::new(PartialSettings::default(), environment);
    if let Some(secret) = sources.secret()? {
        return Ok(Some(CallerSecret::Text(secret.into())));
    }
    Ok(sources.secret_file()?.map(CallerSecret::File))
}
