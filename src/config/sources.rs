//! The sources of a setting, and their precedence. `resolve` opens them once per command and asks
//! for one setting after the other: a flag wins over a variable, a variable over the file. Settings
//! of several commands are parsed here.

use std::path::PathBuf;
use std::str::FromStr;

use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnectOptions;
use zeroize::Zeroizing;

use super::database_url::DatabaseUrl;
use super::environment::{Account, Environment};
use super::file::{ClientCertificate, FileSettings};
use super::flags::{CostFlags, SharedFlags};
use super::keyring::{parse_keyring, read_keyring};
use super::links::check_database;
use super::settings::{DatabaseSettings, DatabaseTarget, LogSettings, Storage};
use super::values::{DatabasePooling, Switch};
use super::{ConfigError, KeyringOrigin};
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::store::{PasswordFile, Pooling, Route};

/// The three sources of a setting, highest precedence first.
pub(super) struct Sources<'a> {
    flags: SharedFlags,
    environment: &'a Environment,
    file: FileSettings,
    path: Option<PathBuf>,
}

impl<'a> Sources<'a> {
    pub(super) fn open(flags: SharedFlags, environment: &'a Environment) -> Result<Self, ConfigError> {
        let path: Option<PathBuf> = match flags.config.clone() {
            Some(path) => Some(path),
            None => environment.value("TOKEND_CONFIG")?,
        };
        let file = match &path {
            Some(path) => FileSettings::read(path)?,
            None => FileSettings::default(),
        };
        Ok(Self { flags, environment, file, path })
    }

    /// Refuses flags that nothing has asked for: their user expects an effect.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let SharedFlags {
            config: _,
            database_url,
            database_pooling,
            direct_database_url,
            database_insecure,
            database_password_file,
            keyring,
            secret_prefix,
            log_format,
            log_level,
        } = self.flags;
        let left = [
            ("--database-url", database_url.is_some()),
            ("--database-pooling", database_pooling.is_some()),
            ("--direct-database-url", direct_database_url.is_some()),
            ("--database-insecure", database_insecure),
            ("--database-password-file", database_password_file.is_some()),
            ("--keyring", keyring.is_some()),
            ("--secret-prefix", secret_prefix.is_some()),
            ("--log-format", log_format.is_some()),
            ("--log-level", log_level.is_some()),
        ];
        match left.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(ConfigError::WithoutEffect { flag, why: "here" }),
            None => Ok(()),
        }
    }

    /// Returns a setting by the precedence that holds for all: flag, variable, file.
    pub(super) fn choose<T>(
        &mut self,
        flag: Option<T>,
        variable: &'static str,
        file: impl FnOnce(&mut FileSettings) -> Option<T>,
    ) -> Result<Option<T>, ConfigError>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        if flag.is_some() {
            return Ok(flag);
        }
        let found = self.environment.value(variable)?;
        Ok(found.or_else(|| file(&mut self.file)))
    }

    pub(super) fn is_on(
        &mut self,
        flag: bool,
        variable: &'static str,
        file: impl FnOnce(&mut FileSettings) -> Option<Switch>,
    ) -> Result<bool, ConfigError> {
        let switch = self.choose(Switch::of_flag(flag), variable, file)?;
        Ok(switch.is_some_and(Switch::is_on))
    }

    pub(super) fn client_certificates(&mut self) -> Vec<ClientCertificate> {
        std::mem::take(&mut self.file.client_certificate)
    }

    /// Returns the configuration file's path, if there is one.
    pub(super) fn file_path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    pub(super) fn log(&mut self) -> Result<LogSettings, ConfigError> {
        let format = self.flags.log_format.take();
        let filter = self.flags.log_level.take();
        Ok(LogSettings {
            format: self
                .choose(format, "TOKEND_LOG_FORMAT", |file| file.log_format.take())?
                .unwrap_or_default(),
            filter: self
                .choose(filter, "TOKEND_LOG_LEVEL", |file| file.log_level.take())?
                .unwrap_or_default(),
        })
    }

    pub(super) fn prefix(&mut self) -> Result<Prefix, ConfigError> {
        let flag = self.flags.secret_prefix.take();
        let text = self.choose(flag, "TOKEND_SECRET_PREFIX", |file| file.secret_prefix.take())?;
        text.map_or_else(
            || Ok(Prefix::default()),
            |text| Prefix::parse(&text).map_err(ConfigError::SecretPrefix),
        )
    }

    pub(super) fn cost(&mut self, flags: &CostFlags) -> Result<DurableCost, ConfigError> {
        let default = DurableCost::default();
        let memory_kib =
            self.choose(flags.memory_kib, "TOKEND_ARGON2_MEMORY_KIB", |file| file.argon2_memory_kib.take())?;
        let iterations =
            self.choose(flags.iterations, "TOKEND_ARGON2_ITERATIONS", |file| file.argon2_iterations.take())?;
        let parallelism = self
            .choose(flags.parallelism, "TOKEND_ARGON2_PARALLELISM", |file| file.argon2_parallelism.take())?;
        DurableCost::new(
            memory_kib.unwrap_or(default.memory_kib()),
            iterations.unwrap_or(default.iterations()),
            parallelism.unwrap_or(default.parallelism()),
        )
        .map_err(ConfigError::Cost)
    }

    /// Returns the keyring given by flag, variable, text or file, if any.
    pub(super) fn keyring(&mut self) -> Result<Option<Keyring>, ConfigError> {
        Ok(self.keyring_and_file()?.map(|(keyring, _)| keyring))
    }

    /// Returns the keyring, and the file that it was read from, if any.
    pub(super) fn keyring_and_file(&mut self) -> Result<Option<(Keyring, Option<PathBuf>)>, ConfigError> {
        let read = |path: PathBuf| Ok(Some((read_keyring(&path)?, Some(path))));
        if let Some(path) = self.flags.keyring.take() {
            return read(path);
        }
        let path: Option<PathBuf> = self.environment.value("TOKEND_KEYRING")?;
        let text = self.environment.text("TOKEND_KEYS")?;
        match (path, text) {
            (Some(_), Some(_)) => Err(ConfigError::TwoKeyrings),
            (Some(path), None) => read(path),
            (None, Some(text)) => {
                let text = Zeroizing::new(text);
                Ok(Some((parse_keyring(&text, KeyringOrigin::Environment)?, None)))
            }
            (None, None) => self.file.keyring.take().map_or(Ok(None), read),
        }
    }

    /// Returns the route to the database given by flag, variable or file, if any, and the route
    /// past the pooler.
    fn routes(&mut self) -> Result<Option<(Route, Option<Route>)>, ConfigError> {
        let insecure_flag = std::mem::take(&mut self.flags.database_insecure);
        let insecure =
            self.is_on(insecure_flag, "TOKEND_DATABASE_INSECURE", |file| file.database_insecure.take())?;
        let flag = self.flags.database_url.take();
        let variables = ["TOKEND_DATABASE_URL", "DATABASE_URL"];
        let file = self.file.database_url.take();
        let options = self.connect_options(flag, "--database-url", &variables, file, insecure)?;
        let flag = self.flags.direct_database_url.take();
        let file = self.file.direct_database_url.take();
        let variables = ["TOKEND_DIRECT_DATABASE_URL"];
        let direct = self.connect_options(flag, "--direct-database-url", &variables, file, insecure)?;
        let flag = self.flags.database_pooling.take();
        let pooling = self.choose(flag, "TOKEND_DATABASE_POOLING", |file| file.database_pooling.take())?;
        let flag = self.flags.database_password_file.take();
        let path =
            self.choose(flag, "TOKEND_DATABASE_PASSWORD_FILE", |file| file.database_password_file.take())?;
        let password_file = path.map(PasswordFile::new);
        let route = |options, pooling| with_password(options, pooling, password_file.clone());
        match options {
            Some(options) => {
                let pooling = pooling.map_or_else(Pooling::default, DatabasePooling::get);
                let direct = direct.map(|options| route(options, Pooling::Session)).transpose()?;
                Ok(Some((route(options, pooling)?, direct)))
            }
            None if insecure_flag || direct.is_some() || pooling.is_some() || password_file.is_some() => {
                Err(ConfigError::NoDatabaseToPool)
            }
            None => Ok(None),
        }
    }

    fn connect_options(
        &self,
        flag: Option<String>,
        name: &'static str,
        variables: &[&'static str],
        file: Option<DatabaseUrl>,
        insecure: bool,
    ) -> Result<Option<PgConnectOptions>, ConfigError> {
        let options = |url: &DatabaseUrl, origin| {
            let options = url.options(origin, self.environment)?;
            check_database(&options, origin, insecure)?;
            Ok(Some(options))
        };
        if let Some(url) = flag.map(DatabaseUrl::from) {
            if url.has_password() {
                return Err(ConfigError::PasswordInFlag { name, variable: variables[variables.len() - 1] });
            }
            return options(&url, name);
        }
        for variable in variables {
            if let Some(url) = self.environment.text(variable)? {
                return options(&DatabaseUrl::from(url), variable);
            }
        }
        file.map_or(Ok(None), |url| options(&url, "the configuration file"))
    }

    pub(super) fn database(&mut self) -> Result<DatabaseSettings, ConfigError> {
        let (database, direct) = self.routes()?.ok_or(ConfigError::NoDatabase)?;
        let target = DatabaseTarget::Shared(Box::new(direct.unwrap_or(database)));
        Ok(DatabaseSettings { target, prefix: self.prefix()? })
    }

    /// Returns the database and its keyring: the embedded Postgres if a flag names its directory,
    /// or if no URL is given and serve has created one.
    pub(super) fn database_and_keyring(
        &mut self,
        data_dir: Option<PathBuf>,
    ) -> Result<(DatabaseSettings, Keyring), ConfigError> {
        let named = data_dir.is_some();
        let shared = if named { None } else { self.routes()? };
        if let Some((database, direct)) = shared {
            let target = DatabaseTarget::Shared(Box::new(direct.unwrap_or(database)));
            let keyring = self.keyring()?.ok_or(ConfigError::NoKeyring)?;
            return Ok((DatabaseSettings { target, prefix: self.prefix()? }, keyring));
        }
        let data_dir = self.data_dir(data_dir).or(Err(ConfigError::NoDatabase))?;
        if !named && !data_dir.join("keyring").exists() {
            return Err(ConfigError::NoDatabase);
        }
        let keyring = self.keyring()?.map_or_else(|| read_keyring(&data_dir.join("keyring")), Ok)?;
        Ok((DatabaseSettings { target: DatabaseTarget::Private(data_dir), prefix: self.prefix()? }, keyring))
    }

    /// Returns the data directory given by flag, variable or file, or the default one; absolute.
    pub(super) fn data_dir(&mut self, flag: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        let given = self.choose(flag, "TOKEND_DATA_DIR", |file| file.data_dir.take())?;
        let data_dir = match given {
            Some(path) => path,
            None => default_data_dir(self.environment)?,
        };
        std::path::absolute(data_dir).map_err(ConfigError::DataDirectory)
    }

    pub(super) fn storage(&mut self, data_dir: Option<PathBuf>) -> Result<Storage, ConfigError> {
        if let Some((database, direct)) = self.routes()? {
            let (keyring, keyring_file) = self.keyring_and_file()?.ok_or(ConfigError::NoKeyring)?;
            return Ok(Storage::Shared {
                database: Box::new(database),
                direct: direct.map(Box::new),
                keyring,
                keyring_file,
            });
        }
        let data_dir = self.data_dir(data_dir)?;
        let (keyring, keyring_file) = self.keyring_and_file()?.unzip();
        Ok(Storage::Embedded { data_dir, keyring, keyring_file: keyring_file.flatten() })
    }
}

/// Reads the password for the first time: a file that cannot be used is refused at the start.
fn with_password(
    options: PgConnectOptions,
    pooling: Pooling,
    password_file: Option<PasswordFile>,
) -> Result<Route, ConfigError> {
    let Some(file) = password_file else {
        return Ok(Route { options, pooling, password_file: None });
    };
    let password = file
        .read_first()
        .map_err(|source| ConfigError::PasswordFile { path: file.path().to_owned(), source })?;
    let options = options.password(password.expose_secret());
    Ok(Route { options, pooling, password_file: Some(file) })
}

/// Returns the default data directory. Root's embedded Postgres runs as another user, who cannot
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
