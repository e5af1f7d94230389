//! The TOML file of `--config`: the same names as the flags, without the leading dashes. Read by
//! `resolve` once per command. An unknown key is an error, so that a misspelt setting never
//! silently keeps its default. Paths are relative to the file's directory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::ConfigError;
use super::database_url::DatabaseUrl;
use super::declared::PartialSettings;
use super::setting::Values as _;
use crate::secret::private_file::is_exposed;

impl PartialSettings {
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
        settings.relative_to(path.parent().unwrap_or(Path::new("")));
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
