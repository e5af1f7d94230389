//! The precedence that holds for every setting: a flag wins over a variable, a variable over the file,
//! the file over the default. Used by `declared`, whose methods ask here; knows no single setting.

use std::path::PathBuf;
use std::str::FromStr;

use super::ConfigError;
use super::environment::Environment;
use super::setting::Setting;

/// How errors name the configuration file.
pub(super) const FILE: &str = "the configuration file";

/// The sources of settings, highest precedence first. What has been asked for is no longer in them.
pub(super) struct Precedence<'a, S> {
    pub(super) flags: S,
    pub(super) environment: &'a Environment,
    pub(super) file: S,
    /// The file's path, if there is one.
    pub(super) path: Option<PathBuf>,
    /// The flag, variable or file that the last setting is from; `None`: it has its default.
    pub(super) origin: Option<&'static str>,
}

impl<'a, S: Default> Precedence<'a, S> {
    /// Creates the sources, without a file.
    pub(super) fn new(flags: S, environment: &'a Environment) -> Self {
        Self { flags, environment, file: S::default(), path: None, origin: None }
    }

    /// Returns a setting by the precedence that holds for all: flag, variable, file.
    pub(super) fn choose<T>(
        &mut self,
        setting: &Setting,
        field: fn(&mut S) -> &mut Option<T>,
    ) -> Result<Option<T>, ConfigError>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        self.origin = Some(setting.flag);
        if let Some(given) = field(&mut self.flags).take() {
            return Ok(Some(given));
        }
        for variable in [Some(setting.variable), setting.second_variable].into_iter().flatten() {
            if let Some(found) = self.environment.value(variable)? {
                self.origin = Some(variable);
                return Ok(Some(found));
            }
        }
        let written = field(&mut self.file).take();
        self.origin = written.is_some().then_some(FILE);
        Ok(written)
    }

    /// Returns a setting, or its default if no source has it.
    pub(super) fn choose_or<T>(
        &mut self,
        setting: &Setting,
        field: fn(&mut S) -> &mut Option<T>,
    ) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        if let Some(chosen) = self.choose(setting, field)? {
            return Ok(chosen);
        }
        let default = setting.default.unwrap_or_default().parse();
        default.map_err(|source| ConfigError::Variable { name: setting.variable, source: Box::new(source) })
    }

    /// Returns whether the setting that was asked for last is from a source, and not its default.
    pub(super) fn is_given(&self) -> bool {
        self.origin.is_some()
    }
}
