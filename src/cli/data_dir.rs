//! The private files of a private Postgres: its keyring and the first root secret. Serve writes each
//! once: readable by their owner alone, atomically, and synced to disk before anything depends on them.
//! Call only while holding the directory's Postgres, so that no second tokend writes at the same time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::CommandError;
use super::keygen::new_key;
use crate::config::read_keyring;
use crate::secret::Keyring;

/// The directory that `--data-dir` names.
pub(super) struct DataDir(PathBuf);

impl DataDir {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of the first root secret.
    pub(super) fn root_secret_path(&self) -> PathBuf {
        self.0.join("root-secret")
    }

    /// Returns the path of the keyring.
    pub(super) fn keyring_path(&self) -> PathBuf {
        self.0.join("keyring")
    }

    /// Reads the directory's keyring, and creates it first if there is none.
    pub(super) fn keyring(&self) -> Result<Keyring, CommandError> {
        let path = self.keyring_path();
        let absent =
            !path.try_exists().map_err(|source| CommandError::DataFile { path: path.clone(), source })?;
        if absent {
            let key = new_key()?;
            self.write_private("keyring", &key)
                .map_err(|source| CommandError::DataFile { path: path.clone(), source })?;
            tracing::info!(path = %path.display(), "made a keyring");
        }
        Ok(read_keyring(&path)?)
    }

    /// Writes the first root secret, replacing one whose token is no longer active.
    pub(super) fn keep_root_secret(&self, secret: &SecretString) -> io::Result<()> {
        self.write_private("root-secret", secret)
    }

    /// Writes one line under another name first, so that a crash leaves no half-written file.
    fn write_private(&self, name: &str, line: &SecretString) -> io::Result<()> {
        let unfinished = self.0.join(format!(".{name}.unfinished"));
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(line.expose_secret().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&unfinished, self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_keyring_of_a_data_directory_is_created_once() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::new(directory.path().to_owned());

        let first: Vec<_> = data.keyring().unwrap().key_ids().collect();
        let second: Vec<_> = data.keyring().unwrap().key_ids().collect();

        assert_eq!(first, second);
        let mode = fs::metadata(directory.path().join("keyring")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_stored_root_secret_replaces_the_old_one_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::new(directory.path().to_owned());
        fs::write(directory.path().join(".root-secret.unfinished"), "half").unwrap();
        data.keep_root_secret(&"old".into()).unwrap();

        data.keep_root_secret(&"new".into()).unwrap();

        let path = data.root_secret_path();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
