//! The file with the secret of a login: one for each address of a server, which nobody else can read. It is replaced as
//! a whole, and changed only under its lock. Knows no server.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tonic::codegen::http::Uri;
use zeroize::{Zeroize as _, Zeroizing};

use crate::config::{ConfigError, Environment};

/// All permissions of the group and others.
const GROUP_AND_OTHERS: u32 = 0o077;

/// The longest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// How long `tokend login` and `tokend logout` wait for another command that changes the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum LoginFileError {
    /// It is unknown where it would be.
    #[error("there is no directory for logins: set HOME, or XDG_STATE_HOME")]
    Nowhere,
    /// Somebody else owns it or can use it.
    #[error(
        "{} is not a file or directory that only you can use: remove it, and run `tokend login` again", .0.display()
    )]
    Exposed(PathBuf),
    /// Its content is not what `tokend login` writes.
    #[error("{} is not a login: remove it, and run `tokend login` again", .0.display())]
    Content(PathBuf),
    /// Another command is changing it.
    #[error("another command is changing the login: try again")]
    Busy,
    /// It cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A login as it is stored. Its Debug output shows no secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredLogin {
    /// The server, which alone gets the secret.
    pub(super) address: String,
    pub(super) token_id: String,
    pub(super) user_id: String,
    pub(super) secret: String,
    /// Times of this machine, in seconds since 1970.
    pub(super) expire_time: i64,
    pub(super) renew_time: i64,
    /// The token that this one replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous_id: Option<String>,
    /// The request with which it is being replaced: a repeat gets the same secret. As confidential as a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renewal: Option<String>,
}

impl Drop for StoredLogin {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.renewal.zeroize();
    }
}

impl std::fmt::Debug for StoredLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredLogin").field("token_id", &self.token_id).finish_non_exhaustive()
    }
}

/// Where the login at one address is stored.
pub(super) struct LoginFile {
    directory: PathBuf,
    address: String,
    name: String,
}

/// The exclusive right to change a login; ends when dropped, and with the process.
pub(super) struct Locked<'a> {
    of: &'a LoginFile,
    directory: File,
    _lock: File,
}

impl LoginFile {
    /// Finds where the login at this address is: below `XDG_STATE_HOME`, else `~/.local/state`. `None`: nowhere.
    pub(super) fn of(address: &str, environment: &Environment) -> Result<Option<Self>, ConfigError> {
        let absolute = |text: Option<String>| text.map(PathBuf::from).filter(|path| path.is_absolute());
        let state = match absolute(environment.text("XDG_STATE_HOME")?) {
            Some(state) => Some(state),
            None => absolute(environment.text("HOME")?).map(|home| home.join(".local/state")),
        };
        let address = same(address);
        let digest = Sha256::digest(&address);
        let name = digest.iter().take(16).fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
        Ok(state.map(|state| Self { directory: state.join("tokend/logins"), address, name }))
    }

    /// Reads the login; `None`: there is none.
    pub(super) fn read(&self) -> Result<Option<StoredLogin>, LoginFileError> {
        match self.open() {
            Ok(directory) => self.read_in(&directory),
            Err(LoginFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock, unless another command has it.
    pub(super) fn try_lock(&self) -> Result<Option<Locked<'_>>, LoginFileError> {
        let directory = self.open()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(&directory, format!("{}.lock", self.name), flags, Mode::RUSR | Mode::WUSR);
        let lock = File::from(lock.map_err(|error| self.io(error))?);
        self.require_private(&lock)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Locked { of: self, directory, _lock: lock })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(source)) => {
                Err(LoginFileError::Io { path: self.path(), source })
            }
        }
    }

    /// Takes the lock once no other command has it; creates the directory.
    pub(super) async fn lock(&self) -> Result<Locked<'_>, LoginFileError> {
        self.create()?;
        let waiting = async {
            loop {
                if let Some(locked) = self.try_lock()? {
                    return Ok(locked);
                }
                tokio::time::sleep(LOCK_RETRY_DELAY).await;
            }
        };
        tokio::time::timeout(LOCK_TIMEOUT, waiting).await.unwrap_or(Err(LoginFileError::Busy))
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.json", self.name))
    }

    fn io(&self, source: impl Into<io::Error>) -> LoginFileError {
        LoginFileError::Io { path: self.path(), source: source.into() }
    }

    fn create(&self) -> Result<(), LoginFileError> {
        let mut below = Vec::new();
        let mut next = Some(self.directory.as_path());
        while let Some(path) = next.filter(|path| !path.exists()) {
            below.push(path);
            next = path.parent();
        }
        for path in below.into_iter().rev() {
            match mkdirat(CWD, path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => {
                    return Err(LoginFileError::Io { path: path.to_owned(), source: error.into() });
                }
            }
        }
        Ok(())
    }

    /// Opens the directory, which nobody else may be able to change.
    fn open(&self) -> Result<File, LoginFileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match openat(CWD, &self.directory, flags, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(LoginFileError::Exposed(self.directory.clone())),
            Err(error) => return Err(self.io(error)),
        };
        let metadata = opened.metadata().map_err(|error| self.io(error))?;
        if metadata.uid() == own_uid() && metadata.mode() & 0o022 == 0 {
            Ok(opened)
        } else {
            Err(LoginFileError::Exposed(self.directory.clone()))
        }
    }

    /// Refuses a file that others own or can use, and one that has another name, too.
    fn require_private(&self, file: &File) -> Result<(), LoginFileError> {
        let metadata = file.metadata().map_err(|error| self.io(error))?;
        let private = metadata.is_file()
            && metadata.uid() == own_uid()
            && metadata.mode() & GROUP_AND_OTHERS == 0
            // None: another command has replaced the file since it was opened.
            && metadata.nlink() <= 1
            && metadata.len() <= MAX_FILE_BYTES;
        if private { Ok(()) } else { Err(LoginFileError::Exposed(self.path())) }
    }

    fn read_in(&self, directory: &File) -> Result<Option<StoredLogin>, LoginFileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match openat(directory, format!("{}.json", self.name), flags, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(LoginFileError::Exposed(self.path())),
            Err(error) => return Err(self.io(error)),
        };
        self.require_private(&opened)?;
        let mut text = Zeroizing::new(String::new());
        opened.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|error| self.io(error))?;
        let login: StoredLogin =
            serde_json::from_str(&text).map_err(|_| LoginFileError::Content(self.path()))?;
        if login.address == self.address {
            Ok(Some(login))
        } else {
            Err(LoginFileError::Content(self.path()))
        }
    }
}

impl Locked<'_> {
    /// Reads the login as it is now.
    pub(super) fn read(&self) -> Result<Option<StoredLogin>, LoginFileError> {
        self.of.read_in(&self.directory)
    }

    /// Returns the address to write into a login.
    pub(super) fn address(&self) -> &str {
        &self.of.address
    }

    /// Replaces the login. A command that reads it at the same time gets the old one or the new one, also after a crash.
    pub(super) fn write(&self, login: &StoredLogin) -> Result<(), LoginFileError> {
        let text = Zeroizing::new(
            serde_json::to_string(login).map_err(io::Error::other).map_err(|e| self.of.io(e))?,
        );
        let (new, name) = (format!("{}.new", self.of.name), format!("{}.json", self.of.name));
        // What a command left that was killed.
        self.unlink(&new)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR);
        let mut created = File::from(created.map_err(|error| self.of.io(error))?);
        let written = created.write_all(text.as_bytes()).and_then(|()| created.sync_all());
        let written = written.and_then(|()| Ok(renameat(&self.directory, &new, &self.directory, &name)?));
        written.and_then(|()| self.directory.sync_all()).map_err(|error| {
            let _ = self.unlink(&new);
            self.of.io(error)
        })
    }

    /// Removes the login.
    pub(super) fn remove(&self) -> Result<(), LoginFileError> {
        self.unlink(&format!("{}.json", self.of.name))?;
        self.directory.sync_all().map_err(|error| self.of.io(error))
    }

    fn unlink(&self, name: &str) -> Result<(), LoginFileError> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.of.io(error)),
        }
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns the one spelling of an address: a secret goes to no other one.
fn same(address: &str) -> String {
    let text = address.to_ascii_lowercase();
    let Ok(uri) = text.parse::<Uri>() else { return text };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return text };
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("{scheme}://{host}:{port}")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;
    use crate::config::Account;

    const ADDRESS: &str = "http://127.0.0.1:50051";

    fn file(state: &Path, address: &str) -> LoginFile {
        let pairs = [("XDG_STATE_HOME", state.to_str().unwrap())];
        LoginFile::of(address, &Environment::of_pairs(&pairs, Account::Ordinary)).unwrap().unwrap()
    }

    fn login(secret: &str) -> StoredLogin {
        StoredLogin {
            address: same(ADDRESS),
            token_id: "id".to_owned(),
            user_id: "ada".to_owned(),
            secret: secret.to_owned(),
            expire_time: 2,
            renew_time: 1,
            previous_id: None,
            renewal: None,
        }
    }

    #[tokio::test]
    async fn a_login_reads_back_at_its_own_address_alone() {
        let state = tempfile::tempdir().unwrap();
        let stored = file(state.path(), ADDRESS);
        assert!(stored.read().unwrap().is_none());
        let locked = stored.lock().await.unwrap();
        locked.write(&login("canary")).unwrap();
        assert!(stored.try_lock().unwrap().is_none(), "one command at once changes it");
        drop(locked);

        for same in [ADDRESS, "HTTP://127.0.0.1:50051/"] {
            assert_eq!(file(state.path(), same).read().unwrap().unwrap().secret, "canary", "{same}");
        }
        for other in ["https://127.0.0.1:50051", "http://127.0.0.1:50052", "http://localhost:50051"] {
            assert!(file(state.path(), other).read().unwrap().is_none(), "{other}");
        }
        // Nor does a copy under another address's name count.
        let other = file(state.path(), "http://localhost:50051");
        fs::copy(stored.path(), other.path()).unwrap();
        assert!(matches!(other.read(), Err(LoginFileError::Content(_))));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&stored.path()), mode(&stored.directory)), (0o600, 0o700));
        assert!(!format!("{:?}", login("canary")).contains("canary"));
        stored.lock().await.unwrap().remove().unwrap();
        assert!(stored.read().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_file_that_others_can_use_is_refused_and_links_are_not_followed() {
        let state = tempfile::tempdir().unwrap();
        let stored = file(state.path(), ADDRESS);
        stored.lock().await.unwrap().write(&login("canary")).unwrap();
        let path = stored.path();
        let refused = || assert!(matches!(stored.read(), Err(LoginFileError::Exposed(_))));
        for mode in [0o640, 0o604, 0o660, 0o610] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            refused();
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(stored.read().unwrap().is_some());
        // A second name, by which somebody may keep it.
        fs::hard_link(&path, state.path().join("other")).unwrap();
        refused();
        fs::remove_file(&path).unwrap();
        symlink(state.path().join("other"), &path).unwrap();
        refused();
        // What is written replaces the link, and not what it leads to.
        stored.lock().await.unwrap().write(&login("new")).unwrap();
        assert_eq!(stored.read().unwrap().unwrap().secret, "new");
        assert!(fs::read_to_string(state.path().join("other")).unwrap().contains("canary"));
        for mode in [0o770, 0o702] {
            fs::set_permissions(&stored.directory, Permissions::from_mode(mode)).unwrap();
            refused();
        }
        fs::set_permissions(&stored.directory, Permissions::from_mode(0o700)).unwrap();
        let moved = state.path().join("moved");
        fs::rename(&stored.directory, &moved).unwrap();
        symlink(&moved, &stored.directory).unwrap();
        refused();
    }

    #[tokio::test]
    async fn what_a_killed_command_has_left_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let stored = file(state.path(), ADDRESS);
        let locked = stored.lock().await.unwrap();
        locked.write(&login("canary")).unwrap();
        fs::write(stored.directory.join(format!("{}.new", stored.name)), "{\"half").unwrap();
        assert_eq!(stored.read().unwrap().unwrap().secret, "canary");
        let opened = File::open(stored.path()).unwrap();
        locked.write(&login("new")).unwrap();
        // A command that has opened it before reads the old one.
        stored.require_private(&opened).unwrap();
        assert_eq!(stored.read().unwrap().unwrap().secret, "new");
        fs::write(stored.path(), "{\"half").unwrap();
        assert!(matches!(stored.read(), Err(LoginFileError::Content(_))));
    }
}
