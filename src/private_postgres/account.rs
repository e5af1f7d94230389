//! The account that runs Postgres: the current user, or, when tokend runs as root, an unprivileged
//! account, since Postgres refuses root. Builds the commands that run as that account.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use super::error::PrivatePostgresError;

/// Accounts as which root runs Postgres, by preference.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// The only environment variables that Postgres gets: none of tokend's, which may contain secrets, and
/// none of Postgres's own (PGPORT, PGDATA …), which would change what it does.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// Returns whether this process is root.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The account that runs Postgres.
#[derive(Debug)]
pub(super) struct Account {
    name: String,
    ids: Option<Ids>,
    has_setpriv: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ids {
    user: u32,
    group: u32,
}

/// Executes a program, unless its parent is not the expected process: a parent that dies before its
/// child has requested a signal sends none.
const UNLESS_ORPHANED: &str = r#"[ "$PPID" = "$1" ] || exit 1; shift; exec "$@""#;

impl Account {
    /// Chooses the account: for root the owner of `data`, if the directory exists, so that an account
    /// created later does not lose access to the data.
    pub(super) fn choose(data: &Path) -> Result<Self, PrivatePostgresError> {
        let has_setpriv = can_signal_on_death();
        if !is_root() {
            return Ok(Self {
                name: rustix::process::geteuid().as_raw().to_string(),
                ids: None,
                has_setpriv,
            });
        }
        // An account that may have been chosen before: any other owner has been refused.
        let owner = fs::metadata(data).ok().filter(|found| found.uid() != 0);
        let (name, ids) = match owner {
            Some(owner) => {
                let (user, group) = (owner.uid(), owner.gid());
                (user.to_string(), Ids { user, group })
            }
            None => UNPRIVILEGED
                .into_iter()
                .find_map(|name| Some((name.to_owned(), look_up(name)?)))
                .ok_or(PrivatePostgresError::NoAccount)?,
        };
        Ok(Self { name, ids: Some(ids), has_setpriv })
    }

    /// Returns a command that runs as this account, in its own process group, so that Ctrl-C on the
    /// terminal only reaches tokend.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|&name| Some((name, env::var_os(name)?))))
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .process_group(0);
        if let Some(ids) = self.ids {
            // The standard library also clears the supplementary groups.
            command.uid(ids.user).gid(ids.group);
        }
        command
    }

    /// Returns a command like [`Self::command`] that gets `signal` when the calling thread ends, killed
    /// or not, if the system supports that (Linux).
    pub(super) fn command_with_death_signal(&self, program: &Path, signal: &str) -> Command {
        if !self.has_setpriv {
            return self.command(program);
        }
        let mut command = self.command("setpriv");
        command.args(["--pdeathsig", signal, "--", "sh", "-c", UNLESS_ORPHANED, "sh"]);
        command.arg(std::process::id().to_string()).arg(program);
        command
    }

    /// Gives a directory created by this process to the account.
    pub(super) fn own(&self, directory: &Path) -> io::Result<()> {
        match self.ids {
            Some(ids) => chown(directory, Some(ids.user), Some(ids.group)),
            None => Ok(()),
        }
    }

    /// Checks that the account can traverse `directory`.
    pub(super) fn require_access(&self, directory: &Path) -> Result<(), PrivatePostgresError> {
        if self.ids.is_none() || succeeds(self.command("test").arg("-x").arg(directory)) {
            return Ok(());
        }
        Err(PrivatePostgresError::Unreachable { directory: directory.to_owned(), account: self.name.clone() })
    }
}

/// Returns the user ids as which root runs Postgres.
pub(super) fn unprivileged_users() -> Vec<u32> {
    UNPRIVILEGED.into_iter().filter_map(look_up).map(|ids| ids.user).collect()
}

/// Returns whether util-linux's `setpriv` is installed; the one of busybox lacks the option.
fn can_signal_on_death() -> bool {
    cfg!(target_os = "linux") && succeeds(Command::new("setpriv").args(["--pdeathsig", "keep", "--", "true"]))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `id`, which unlike `/etc/passwd` knows the accounts of every name service.
fn look_up(name: &str) -> Option<Ids> {
    let number = |option: &str| {
        let output = Command::new("id").args([option, name]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.trim().parse::<u32>().ok().filter(|&id| id != 0)
    };
    Some(Ids { user: number("-u")?, group: number("-g")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_whose_parent_died_first_does_not_start() {
        let account = Account::choose(Path::new("/nowhere")).unwrap();
        let mut command = account.command_with_death_signal(Path::new("echo"), "KILL");
        command.arg("begun");
        let of_ours = command.output().unwrap();
        // Another process is the parent.
        let of_another = Command::new("sh")
            .args(["-c", r#""$@"; :"#, "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .output()
            .unwrap();

        assert_eq!((&*of_ours.stdout, &*of_another.stdout), (&b"begun\n"[..], &b""[..]));
    }
}
