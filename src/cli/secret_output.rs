//! Where a command writes the secret that it creates: to standard output, or to a new file that
//! nobody else can read. Opened before anything is created, so that an output that cannot be
//! written is refused while nothing is lost.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::CommandError;
use crate::secret::private_file::is_exposed;

/// Into which file a command writes, if into one.
#[derive(Args)]
pub(super) struct OutputFlag {
    /// Write to this new file, which nobody else can read (mode 0600), instead of to standard output; an
    /// existing file is refused
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The destination of a secret, which is written once.
pub(super) enum SecretOutput {
    Stdout,
    File(NewFile),
}

/// A file created for a secret; removed unless the secret is written.
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
    written: bool,
}

impl OutputFlag {
    /// Creates the file, or checks that standard output is read, and by nobody else.
    pub(super) fn open(self) -> Result<SecretOutput, CommandError> {
        let Some(path) = self.output else {
            return require_stdout().map(|()| SecretOutput::Stdout);
        };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(SecretOutput::File(NewFile { path, file, written: false })),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(CommandError::OutputExists { path })
            }
            Err(source) => Err(CommandError::OutputFile { path, source }),
        }
    }
}

impl SecretOutput {
    /// Writes the secret; a file is also synced to disk.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut output = io::stdout().lock();
                output.write_all(text).and_then(|()| output.flush())
            }
            Self::File(new) => {
                new.file.write_all(text).and_then(|()| new.file.sync_all())?;
                let directory = new.path.parent().filter(|directory| !directory.as_os_str().is_empty());
                File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all())?;
                new.written = true;
                Ok(())
            }
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a standard output where a secret would be lost, or read by others. A closed one is
/// /dev/null: the runtime opens that in its place.
fn require_stdout() -> Result<(), CommandError> {
    let output = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let output = output.and_then(|output| output.metadata()).map_err(|_| CommandError::OutputNowhere)?;
    let nowhere = fs::metadata("/dev/null");
    if nowhere.is_ok_and(|nowhere| (nowhere.dev(), nowhere.ino()) == (output.dev(), output.ino())) {
        return Err(CommandError::OutputNowhere);
    }
    if output.is_file() && is_exposed(&output) {
        return Err(CommandError::OutputExposed { mode: output.mode() & 0o777 });
    }
    Ok(())
}
