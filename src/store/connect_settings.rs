//! How to reach Postgres: the address and role, what an open connection represents there, and the
//! password, which may change. Made from the configuration; used by all code that opens a connection.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Error};
use zeroize::Zeroizing;

use crate::secret::private_file::is_exposed;

/// What an open connection represents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PoolerMode {
    /// A dedicated session: a direct connection, or one through a pooler in session mode.
    #[default]
    Session,
    /// One session per transaction: a pooler in transaction mode.
    Transaction,
}

/// How to reach Postgres.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// The connect options.
    pub options: PgConnectOptions,
    /// What an open connection represents there.
    pub pooling: PoolerMode,
    /// The file with the password, if it may change.
    pub password_file: Option<PasswordFile>,
}

/// A file with the password of a role, on its first line; read again for each connection.
#[derive(Debug, Clone)]
pub struct PasswordFile {
    path: PathBuf,
    /// A fingerprint of the password that the pool uses.
    known: Arc<Mutex<Option<[u8; 32]>>>,
}

impl PasswordFile {
    /// More than the length of any password.
    const MAX_BYTES: u64 = 4096;

    /// Creates one for the file at this path.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: Arc::default() }
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the first line, without its end.
    ///
    /// # Errors
    /// The file cannot be read, can be read by others than its owner, or contains no password.
    pub fn read(&self) -> io::Result<SecretString> {
        let file = File::open(&self.path)?;
        if is_exposed(&file.metadata()?) {
            return Err(io::Error::other("it can be read by others: run chmod 600 on it"));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(Self::MAX_BYTES).read_to_string(&mut text)?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(line.into()),
            _ => Err(io::Error::other("its first line is empty")),
        }
    }

    /// Reads the password for the first time: `read_changed` then compares with it.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn read_first(&self) -> io::Result<SecretString> {
        let password = self.read()?;
        self.note(&password);
        Ok(password)
    }

    /// Reads the password, if it has changed since the last read.
    pub(super) fn read_changed(&self) -> io::Result<Option<SecretString>> {
        let password = self.read()?;
        Ok(self.note(&password).then_some(password))
    }

    /// Remembers the password; returns whether it has changed.
    fn note(&self, password: &SecretString) -> bool {
        let fingerprint: [u8; 32] = Sha256::digest(password.expose_secret()).into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(fingerprint) != Some(fingerprint)
    }
}

impl From<PgConnectOptions> for ConnectSettings {
    fn from(options: PgConnectOptions) -> Self {
        Self { options, pooling: PoolerMode::Session, password_file: None }
    }
}

impl ConnectSettings {
    /// Opens a connection, with the current password.
    pub(super) async fn connect(&self) -> Result<PgConnection, Error> {
        self.current()?.connect().await
    }

    /// Returns the connect options, with the current password.
    pub(super) fn current(&self) -> Result<PgConnectOptions, Error> {
        let options = self.options.clone();
        let Some(file) = &self.password_file else { return Ok(options) };
        let password = file.read().map_err(|error| Error::Configuration(Box::new(error)))?;
        Ok(options.password(password.expose_secret()))
    }
}
