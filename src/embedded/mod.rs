//! The private Postgres: found on the machine, run from tokend's data directory, reached through
//! a Unix socket alone, and ended with the process that owns it.
//!
//! `tokend serve` starts one when no database is configured; the tests start a disposable one.
//! Everything here blocks. It must never know what the database is used for: no SQL, no client.
//!
//! `layout` says where things lie, `account` who runs them, `binaries` which Postgres,
//! `previous` deals with what a killed run left, `server` is the living postmaster, `upgrade` takes the data to another
//! major version.

mod account;
mod binaries;
mod error;
mod layout;
mod previous;
mod server;
mod settings;
mod trust;
mod upgrade;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::account::Account;
use self::binaries::Binaries;
pub use self::error::EmbeddedError;
use self::layout::Layout;
use self::server::Server;
pub use self::settings::Durability;
pub use self::upgrade::{Upgraded, delete_kept, kept, upgrade};

/// A running private Postgres; dropping it stops the server, as far as that can be done.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    server: Server,
    // Held for the cluster's life: whoever has it may touch the data.
    lock: File,
}

impl Cluster {
    /// The superuser's name; the socket trusts whoever can reach it.
    pub const ROLE: &'static str = settings::ROLE;
    /// The database that exists from the first start.
    pub const DATABASE: &'static str = "postgres";
    /// The port that names the socket file; nothing listens on TCP.
    pub const PORT: u16 = settings::PORT;

    /// Starts Postgres on `dir`, making the directory and the data in it when there are none.
    ///
    /// Blocks until connections are accepted: about a second on a new directory, a tenth of one on
    /// a used one, at most some two minutes when an earlier run has to be ended and recovered.
    ///
    /// # Errors
    /// [`EmbeddedError::InUse`] while another process runs a cluster on `dir`; the other variants
    /// say what this machine lacks or what Postgres reported.
    pub fn start(dir: &Path, durability: Durability) -> Result<Self, EmbeddedError> {
        let begun = Instant::now();
        trust::check(dir)?;
        let layout = Layout::create(dir)?;
        let lock = layout.lock()?;
        let account = Account::choose(&layout.data())?;
        account.require_access(layout.root())?;
        let binaries = Binaries::find(&account, &layout)?;
        previous::end(&layout.data(), &account, &binaries)?;
        if layout.data_major()?.is_none() {
            server::initialise(&layout, &account, &binaries, durability)?;
        }
        layout.fresh_socket_directory(&account)?;
        let server = Server::start(&layout, &account, &binaries, durability)?;
        tracing::info!(
            postgres.major = binaries.major(),
            postgres.pid = server.pid(),
            directory = %layout.root().display(),
            duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "private postgres is ready"
        );
        Ok(Self { layout, server, lock })
    }

    /// Starts Postgres on data that are there, unless it runs there already for somebody else; `None`: it does.
    ///
    /// # Errors
    /// [`EmbeddedError::NoData`]: nothing is made; the others as of [`Cluster::start`].
    pub fn start_unless_running(dir: &Path) -> Result<Option<Self>, EmbeddedError> {
        if Layout::existing(dir)?.data_major()?.is_none() {
            return Err(EmbeddedError::NoData { directory: dir.to_owned() });
        }
        match Self::start(dir, Durability::Durable) {
            Err(EmbeddedError::InUse { .. }) => Ok(None),
            started => started.map(Some),
        }
    }

    /// Returns where the socket of a directory's Postgres is, which need not run.
    ///
    /// # Errors
    /// The directory is not there, or its path too long.
    pub fn socket_dir_in(dir: &Path) -> Result<PathBuf, EmbeddedError> {
        Ok(Layout::existing(dir)?.socket_directory().to_owned())
    }

    /// Returns the directory of the socket, to be given to a client as its host.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.layout.socket_directory()
    }

    /// Returns the file that the server's own messages go to.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.layout.log()
    }

    /// Returns the process id of the postmaster.
    #[must_use]
    pub fn postmaster_pid(&self) -> u32 {
        self.server.pid()
    }

    /// Tells whether the postmaster is still there; nothing starts it again by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Disconnects all clients, writes everything down and waits until the server has gone: about
    /// a tenth of a second, at most 20 s.
    ///
    /// # Errors
    /// [`EmbeddedError::StillRunning`] when it did not end even by an immediate shutdown.
    pub fn stop(self) -> Result<(), EmbeddedError> {
        self.server.stop(&self.layout)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.server.stop(&self.layout) {
            tracing::error!(%error, "private postgres was left running");
        }
        // Closing is not enough: a child that another thread has forked, and that has not yet
        // executed its program, shares the lock for a moment. Where this fails, closing remains.
        let _ = self.lock.unlock();
    }
}
