//! The paths and permissions of the private Postgres below tokend's data directory. Called by the other
//! files of `private_postgres`. Must never know how Postgres is run.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::account::{Account, is_root};
use super::error::PrivatePostgresError;
use super::settings::PORT;

/// The maximum bytes of a socket's path without the terminating zero: `sun_path` less one.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// A killed lock holder keeps the lock until the system has removed the process.
const LOCK_TIMEOUT: Duration = Duration::from_millis(300);
/// A log larger than this, in bytes, is truncated at the next start.
const LARGEST_LOG: u64 = 10 * 1024 * 1024;
/// The maximum bytes and lines of a log that an error quotes.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 8;

/// The paths below one data directory.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    socket_directory: PathBuf,
}

impl Layout {
    /// Creates the data directory if it does not exist, and resolves its absolute path.
    pub(super) fn create(root: &Path) -> Result<Self, PrivatePostgresError> {
        if !root.is_dir() {
            // As root: another account must be able to traverse it to the data.
            let mode = if is_root() { 0o711 } else { 0o700 };
            DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(root)
                .and_then(|()| fs::set_permissions(root, Permissions::from_mode(mode)))
                .map_err(PrivatePostgresError::io("make the data directory", root))?;
        }
        let root =
            fs::canonicalize(root).map_err(PrivatePostgresError::io("resolve the data directory", root))?;
        let socket_directory = root.join("postgres-socket");
        let socket = socket_directory.join(format!(".s.PGSQL.{PORT}"));
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(PrivatePostgresError::PathTooLong { socket, longest: MAX_SOCKET_PATH });
        }
        Ok(Self { root, socket_directory })
    }

    /// Uses an existing data directory.
    pub(super) fn existing(root: &Path) -> Result<Self, PrivatePostgresError> {
        if root.is_dir() {
            Self::create(root)
        } else {
            Err(PrivatePostgresError::NoData { directory: root.to_owned() })
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// The directory of the data, Postgres's PGDATA.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// The working directory of `initdb`: its content was never finished.
    pub(super) fn unfinished_data(&self) -> PathBuf {
        self.root.join("postgres.new")
    }

    /// The working directory of an upgrade: its content was never finished, or is the replaced data.
    pub(super) fn upgrade_directory(&self) -> PathBuf {
        self.root.join("postgres.upgrade")
    }

    /// Where an upgrade creates the new data.
    pub(super) fn upgraded_data(&self) -> PathBuf {
        self.upgrade_directory().join("data")
    }

    /// Where the data of a major version are kept after they are replaced.
    pub(super) fn old_data_dir(&self, major: u32) -> PathBuf {
        self.root.join(format!("postgres-{major}"))
    }

    /// Creates an empty working directory for an upgrade.
    pub(super) fn fresh_upgrade_directory(&self, account: &Account) -> Result<(), PrivatePostgresError> {
        make_private(&self.upgrade_directory(), account)
    }

    /// Renames data that an upgrade has replaced to the name under which they are kept: data in its
    /// working directory that are older than `major`, which is in use. Returns the new path, if there
    /// were any.
    pub(super) fn keep_replaced_data(&self, major: u32) -> Result<Option<PathBuf>, PrivatePostgresError> {
        let replaced = self.upgraded_data();
        let Some(old) = major_in(&replaced)?.filter(|&old| old < major) else { return Ok(None) };
        let old_data = self.old_data_dir(old);
        fs::rename(&replaced, &old_data)
            .map_err(PrivatePostgresError::io("move the old database to", &old_data))?;
        fs::remove_dir_all(self.upgrade_directory())
            .map_err(PrivatePostgresError::io("remove", &self.upgrade_directory()))?;
        self.sync()?;
        Ok(Some(old_data))
    }

    /// Returns the directories of all data that upgrades have kept.
    pub(super) fn all_old_data(&self) -> Result<Vec<PathBuf>, PrivatePostgresError> {
        let read = PrivatePostgresError::io("read", &self.root);
        let entries =
            fs::read_dir(&self.root).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(read)?;
        let old_data = entries.into_iter().filter(|entry| {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix("postgres-"));
            version.is_some_and(|version| version.parse::<u32>().is_ok())
        });
        Ok(old_data.map(|entry| entry.path()).collect())
    }

    /// Makes the names in the directory survive a crash of the machine.
    pub(super) fn sync(&self) -> Result<(), PrivatePostgresError> {
        File::open(&self.root)
            .and_then(|root| root.sync_all())
            .map_err(PrivatePostgresError::io("sync", &self.root))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// Takes the exclusive lock that is required to change anything in the directory.
    pub(super) fn lock(&self) -> Result<File, PrivatePostgresError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(PrivatePostgresError::io("open", &path))?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(PrivatePostgresError::InUse { directory: self.root.clone() });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(PrivatePostgresError::io("lock", &path)(source));
                }
            }
        }
    }

    /// Returns the major version that wrote the data, or `None` if there are no data yet.
    pub(super) fn data_major(&self) -> Result<Option<u32>, PrivatePostgresError> {
        major_in(&self.data())
    }

    /// Recreates the socket's directory: its content belongs to a server that is gone.
    pub(super) fn fresh_socket_directory(&self, account: &Account) -> Result<(), PrivatePostgresError> {
        make_private(&self.socket_directory, account)
    }

    /// Creates an empty working directory for `initdb`.
    pub(super) fn fresh_unfinished_data(&self, account: &Account) -> Result<(), PrivatePostgresError> {
        make_private(&self.unfinished_data(), account)
    }

    /// Moves finished data to their final name.
    pub(super) fn finish_data(&self) -> Result<(), PrivatePostgresError> {
        let data = self.data();
        fs::rename(self.unfinished_data(), &data)
            .and_then(|()| File::open(&self.root)?.sync_all())
            .map_err(PrivatePostgresError::io("move the new database to", &data))
    }

    /// Opens the server's log for appending; returns it with its current length.
    pub(super) fn open_log(&self) -> Result<(File, u64), PrivatePostgresError> {
        let path = self.log();
        let open = || {
            let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            if log.metadata()?.len() > LARGEST_LOG {
                log.set_len(0)?;
            }
            let length = log.metadata()?.len();
            Ok((log, length))
        };
        open().map_err(PrivatePostgresError::io("open", &path))
    }

    /// Returns the last lines that were added to the log since it had `start` bytes.
    pub(super) fn log_tail(&self, start: u64) -> String {
        let read = || -> io::Result<String> {
            let mut log = File::open(self.log())?;
            let end = log.metadata()?.len();
            log.seek(SeekFrom::Start(start.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes)?;
            Ok(last_lines(&bytes))
        };
        read().unwrap_or_default()
    }
}

/// Returns the last lines of a program's output as one text.
pub(super) fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn major_in(data: &Path) -> Result<Option<u32>, PrivatePostgresError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| {
            PrivatePostgresError::io("read", &path)(io::Error::other("it holds no version number"))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PrivatePostgresError::io("read", &path)(error)),
    }
}

fn make_private(directory: &Path, account: &Account) -> Result<(), PrivatePostgresError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(PrivatePostgresError::io("remove", directory)(error));
        }
        _ => {}
    }
    DirBuilder::new()
        .mode(0o700)
        .create(directory)
        .and_then(|()| account.own(directory))
        .map_err(PrivatePostgresError::io("make", directory))
}
