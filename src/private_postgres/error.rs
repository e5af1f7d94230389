//! Why a private Postgres could not be started or stopped, in messages that say what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why the private Postgres is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivatePostgresError {
    /// Another process runs a cluster in the same directory.
    #[error(
        "{} is in use by another tokend: stop that one, or choose another data directory",
        directory.display()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// The socket's path does not fit into a socket address.
    #[error(
        "the data directory's path is too long: {} has {} bytes, but a socket's path may have at most \
         {longest}; choose a shorter data directory",
        socket.display(), socket.as_os_str().len()
    )]
    PathTooLong {
        /// The path of the socket.
        socket: PathBuf,
        /// The maximum number of bytes on this system.
        longest: usize,
    },
    /// No Postgres server was found on this machine.
    #[error(
        "no Postgres server is installed: install it with `{install}`, or set DATABASE_URL to a Postgres that runs elsewhere"
    )]
    NotInstalled {
        /// The command that installs one here.
        install: &'static str,
    },
    /// Only a server older than the oldest supported one was found.
    #[error(
        "Postgres {major} in {} is too old: {} or newer is needed; install one with `{install}`, or set DATABASE_URL",
        directory.display(), super::settings::OLDEST_MAJOR
    )]
    TooOld {
        /// The directory of its programs.
        directory: PathBuf,
        /// Its major version.
        major: u32,
        /// The command that installs a newer one here.
        install: &'static str,
    },
    /// The data were written by a major version that is not installed.
    #[error(
        "the data in {} belongs to Postgres {data}, but this machine has Postgres {installed}: install \
         Postgres {data} as well, then start again, or upgrade the data to {installed} with `tokend data \
         upgrade --data-dir {}`",
        directory.display(), directory.parent().unwrap_or(directory).display()
    )]
    OtherMajor {
        /// The directory of the data.
        directory: PathBuf,
        /// The major version that wrote them.
        data: u32,
        /// The major version that was found.
        installed: u32,
    },
    /// There is no data to upgrade.
    #[error("there is no data of a private Postgres in {}", directory.display())]
    NoData {
        /// The data directory.
        directory: PathBuf,
    },
    /// No newer Postgres, with its `pg_upgrade`, was found.
    #[error(
        "the data in {} belongs to Postgres {data}, and no newer Postgres with its pg_upgrade is installed: \
         install one in addition to Postgres {data}, then run this again",
        directory.display()
    )]
    NoNewer {
        /// The directory of the data.
        directory: PathBuf,
        /// The major version that wrote them.
        data: u32,
    },
    /// The data kept by an earlier upgrade are in the way.
    #[error(
        "{} still exists from an earlier upgrade: run `tokend data delete-old`, or move it away",
        directory.display()
    )]
    OldDataExists {
        /// The directory.
        directory: PathBuf,
    },
    /// A step of an upgrade failed.
    #[error("{} failed, and the data is unchanged:\n{output}", program.display())]
    Upgrade {
        /// The program.
        program: PathBuf,
        /// The end of its output.
        output: String,
    },
    /// tokend was started as root, and there is no account to run Postgres as.
    #[error(
        "postgres refuses to run as root, and this system has neither a user `postgres` nor `nobody`: create \
         the user `postgres`"
    )]
    NoAccount,
    /// The account that runs Postgres cannot reach the data directory.
    #[error(
        "the user {account}, which runs Postgres when tokend is started as root, cannot reach {}: make it \
         and the directories above it passable (chmod a+x), or choose another data directory",
        directory.display()
    )]
    Unreachable {
        /// The directory that it cannot traverse.
        directory: PathBuf,
        /// The name or number of the account.
        account: String,
    },
    /// Root has found a file of another account.
    #[error(
        "{} belongs to another account (user {owner}), but root would trust its contents: run tokend as that \
         account, give it to root (chown), or choose another data directory", path.display()
    )]
    OfAnotherAccount {
        /// The file or directory.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Users other than root can change what root would use.
    #[error(
        "users other than root can write to {}, but root would trust its contents: remove that permission \
         (chmod go-w), or choose another data directory", path.display()
    )]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory could not be used, or a program not started.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The failed action.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb could not create a database in {}: {output}", directory.display())]
    Initialise {
        /// The data directory.
        directory: PathBuf,
        /// The end of its output.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("postgres did not start; its log {} ends with: {tail}", log.display())]
    Start {
        /// The server's log.
        log: PathBuf,
        /// The end of its log since this start.
        tail: String,
    },
    /// The server was not ready in time, for example because a recovery took too long.
    #[error("postgres was not ready after {seconds} s; its log {} ends with: {tail}", log.display())]
    NotReady {
        /// The time limit, in seconds.
        seconds: u64,
        /// The server's log.
        log: PathBuf,
        /// The end of its log since this start.
        tail: String,
    },
    /// A server could not be stopped.
    #[error("the Postgres on {} (process {pid}) does not stop", directory.display())]
    StillRunning {
        /// The directory of its data.
        directory: PathBuf,
        /// The process id of its postmaster.
        pid: u32,
    },
}

impl PrivatePostgresError {
    /// Returns a function that adds the file to an I/O error, for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
