//! Opens the sources of settings, and parses what several commands need: log, database, keyring, costs.
//! `resolve` opens them once per command and asks for one setting after the other, with the methods
//! that `declared` makes.

use std::path::PathBuf;

use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnectOptions;

use super::database_url::DatabaseUrl;
use super::declared::{ClientCertificate, PartialSettings, Sources};
use super::environment::{Account, Environment};
use super::keyring::read_keyring;
use super::links::check_database;
use super::precedence::FILE;
use super::setting::{Setting, Values as _};
use super::settings::{DatabaseSettings, DatabaseTarget, LogSettings, Storage};
use super::{ConfigError, KeyringOrigin};
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::store::{ConnectSettings, PasswordFile, PoolerMode};

impl<'a> Sources<'a> {
    /// Opens the sources, and reads the file if there is one.
    pub(super) fn open(flags: PartialSettings, environment: &'a Environment) -> Result<Self, ConfigError> {
        let mut sources = Self::new(flags, environment);
        sources.path = sources.config()?;
        if let Some(path) = &sources.path {
            sources.file = PartialSettings::read(path)?;
        }
        Ok(sources)
    }

    /// Refuses flags that nothing has asked for: their user expects an effect.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let left = self.flags.any();
        left.map_or(Ok(()), |setting| ConfigError::demand(setting.flag, false, "here"))
    }

    pub(super) fn client_certificates(&mut self) -> Vec<ClientCertificate> {
        std::mem::take(&mut self.file.client_certificate)
    }

    /// Returns the configuration file's path, if there is one.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    pub(super) fn log(&mut self) -> Result<LogSettings, ConfigError> {
        Ok(LogSettings { format: self.log_format()?, filter: self.log_level()? })
    }

    pub(super) fn prefix(&mut self) -> Result<Prefix, ConfigError> {
        Prefix::parse(&self.secret_prefix()?).map_err(ConfigError::SecretPrefix)
    }

    pub(super) fn cost(&mut self) -> Result<DurableCost, ConfigError> {
        let memory_kib = self.argon2_memory_kib()?;
        DurableCost::new(memory_kib, self.argon2_iterations()?, self.argon2_parallelism()?)
            .map_err(ConfigError::Cost)
    }

    /// Returns the keyring given by flag, variable, text or file, and the file that it was read from.
    pub(super) fn keyring_and_file(&mut self) -> Result<Option<(Keyring, Option<PathBuf>)>, ConfigError> {
        let by_flag = self.flags.keyring.is_some();
        let path = self.keyring()?;
        let by_variable = path.is_some() && self.origin != Some(FILE);
        let text = if by_flag { None } else { self.keys()? };
        let Some(text) = text else {
            return path.map(|path| Ok((read_keyring(&path)?, Some(path)))).transpose();
        };
        if by_variable {
            return Err(ConfigError::TwoKeyrings);
        }
        let invalid = |source| ConfigError::KeyringInvalid { origin: KeyringOrigin::Environment, source };
        Ok(Some((text.parse().map_err(invalid)?, None)))
    }

    /// Returns the keyring given by flag, variable, text or file, if any.
    pub(super) fn given_keyring(&mut self) -> Result<Option<Keyring>, ConfigError> {
        Ok(self.keyring_and_file()?.map(|(keyring, _)| keyring))
    }

    /// Returns how to connect to the database given by flag, variable or file, if any, and how past the
    /// pooler.
    fn connect_settings(
        &mut self,
    ) -> Result<Option<(ConnectSettings, Option<ConnectSettings>)>, ConfigError> {
        let insecure_flag = self.flags.database_insecure.is_some();
        let insecure = self.database_insecure()?;
        let url = self.database_url()?;
        let options = self.connect_options(url, &Setting::database_url, insecure)?;
        let url = self.direct_database_url()?;
        let direct = self.connect_options(url, &Setting::direct_database_url, insecure)?;
        let pooling = self.database_pooling()?.get();
        let pooled = self.is_given();
        let password_file = self.database_password_file()?.map(PasswordFile::new);
        let settings = |options, pooling| with_password(options, pooling, password_file.clone());
        match options {
            Some(options) => {
                let direct = direct.map(|options| settings(options, PoolerMode::Session)).transpose()?;
                Ok(Some((settings(options, pooling)?, direct)))
            }
            None if insecure_flag || direct.is_some() || pooled || password_file.is_some() => {
                Err(ConfigError::NoDatabaseToPool)
            }
            None => Ok(None),
        }
    }

    /// Completes and checks a URL, which was asked for last.
    fn connect_options(
        &self,
        url: Option<DatabaseUrl>,
        setting: &Setting,
        insecure: bool,
    ) -> Result<Option<PgConnectOptions>, ConfigError> {
        let (Some(url), Some(origin)) = (url, self.origin) else { return Ok(None) };
        if origin == setting.flag && url.has_password() {
            let variable = setting.second_variable.unwrap_or(setting.variable);
            return Err(ConfigError::PasswordInFlag { name: origin, variable });
        }
        let options = url.options(origin, self.environment)?;
        check_database(&options, origin, insecure)?;
        Ok(Some(options))
    }

    pub(super) fn database(&mut self) -> Result<DatabaseSettings, ConfigError> {
        let (database, direct) = self.connect_settings()?.ok_or(ConfigError::NoDatabase)?;
        let target = DatabaseTarget::Shared(Box::new(direct.unwrap_or(database)));
        Ok(DatabaseSettings { target, prefix: self.prefix()? })
    }

    /// Returns the database and its keyring: the private Postgres if a flag names its directory,
    /// or if no URL is given and serve has created one.
    pub(super) fn database_and_keyring(&mut self) -> Result<(DatabaseSettings, Keyring), ConfigError> {
        let named = self.flags.data_dir.is_some();
        let shared = if named { None } else { self.connect_settings()? };
        if let Some((database, direct)) = shared {
            let target = DatabaseTarget::Shared(Box::new(direct.unwrap_or(database)));
            let keyring = self.given_keyring()?.ok_or(ConfigError::NoKeyring)?;
            return Ok((DatabaseSettings { target, prefix: self.prefix()? }, keyring));
        }
        let data_dir = self.data_directory().or(Err(ConfigError::NoDatabase))?;
        if !named && !data_dir.join("keyring").exists() {
            return Err(ConfigError::NoDatabase);
        }
        let keyring = self.given_keyring()?.map_or_else(|| read_keyring(&data_dir.join("keyring")), Ok)?;
        Ok((DatabaseSettings { target: DatabaseTarget::Private(data_dir), prefix: self.prefix()? }, keyring))
    }

    /// Returns the data directory given by flag, variable or file, or the default one; absolute.
    pub(super) fn data_directory(&mut self) -> Result<PathBuf, ConfigError> {
        let data_dir = match self.data_dir()? {
            Some(path) => path,
            None => default_data_dir(self.environment)?,
        };
        std::path::absolute(data_dir).map_err(ConfigError::DataDirectory)
    }

    pub(super) fn storage(&mut self) -> Result<Storage, ConfigError> {
        if let Some((database, direct)) = self.connect_settings()? {
            // A unit or an image may always name one.
            self.flags.data_dir = None;
            let (keyring, keyring_file) = self.keyring_and_file()?.ok_or(ConfigError::NoKeyring)?;
            return Ok(Storage::Shared {
                database: Box::new(database),
                direct: direct.map(Box::new),
                keyring,
                keyring_file,
            });
        }
        let data_dir = self.data_directory()?;
        let (keyring, keyring_file) = self.keyring_and_file()?.unzip();
        Ok(Storage::Private { data_dir, keyring, keyring_file: keyring_file.flatten() })
    }
}

/// Reads the password for the first time: a file that cannot be used is refused at the start.
fn with_password(
    options: PgConnectOptions,
    pooling: PoolerMode,
    password_file: Option<PasswordFile>,
) -> Result<ConnectSettings, ConfigError> {
    let Some(file) = password_file else {
        return Ok(ConnectSettings { options, pooling, password_file: None });
    };
    let password = file
        .read_first()
        .map_err(|source| ConfigError::PasswordFile { path: file.path().to_owned(), source })?;
    let options = options.password(password.expose_secret());
    Ok(ConnectSettings { options, pooling, password_file: Some(file) })
}

/// Returns the default data directory. Root's private Postgres runs as another user, who cannot
/// access root's home.
fn default_data_dir(environment: &Environment) -> Result<PathBuf, ConfigError> {
    if environment.account() == Account::Root {
        return Ok(PathBuf::from("/var/lib/tokend"));
    }
    let data_home: Option<PathBuf> = environment.value("XDG_DATA_HOME")?;
    // The XDG base directory specification demands that relative paths are ignored.
    if let Some(path) = data_home.filter(|path| path.is_absolute()) {
        return Ok(path.join("tokend"));
    }
    let home: Option<PathBuf> = environment.value("HOME")?;
    home.map(|home| home.join(".local/share/tokend")).ok_or(ConfigError::NoDataDirectory)
}
