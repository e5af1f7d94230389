//! The private Postgres: found on the machine, run in tokend's data directory, reached only by a Unix socket,
//! stopped with its owner process. Started by `tokend serve` without a configured database and, disposable,
//! by the tests. All calls block. Must never know what the database is for: no SQL, no client.

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
pub use self::error::PrivatePostgresError;
use self::layout::Layout;
use self::server::Server;
pub use self::settings::Durability;
pub use self::upgrade::{Upgraded, delete_old_data, old_data, upgrade};

/// A running private Postgres; dropping it stops the server, as far as that can be done.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    server: Server,
    // Held for the cluster's life: only the holder may touch the data.
    lock: File,
}

impl Cluster {
    /// The superuser's name; the socket trusts every client that can reach it.
    pub const ROLE: &'static str = settings::ROLE;
    /// The database that exists from the first start.
    pub const DATABASE: &'static str = "postgres";
    /// The port number in the socket's file name; nothing listens on TCP.
    pub const PORT: u16 = settings::PORT;

    /// Starts Postgres in `dir`, and creates the directory and the data if they do not exist.
    ///
    /// Blocks until connections are accepted: about one second for a new directory, 0.1 s for a used
    /// one, at most about two minutes if an earlier server must be stopped and recovered.
    ///
    /// # Errors
    /// [`PrivatePostgresError::InUse`] while another process runs a cluster in `dir`; the other variants say
    /// what is missing on this machine or what Postgres reported.
    pub fn start(dir: &Path, durability: Durability) -> Result<Self, PrivatePostgresError> {
        let started_at = Instant::now();
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
            duration_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            "private postgres is ready"
        );
        Ok(Self { layout, server, lock })
    }

    /// Starts Postgres on existing data, unless another process already runs it; `None`: it does.
    ///
    /// # Errors
    /// [`PrivatePostgresError::NoData`]: nothing is created; the others as for [`Cluster::start`].
    pub fn start_unless_running(dir: &Path) -> Result<Option<Self>, PrivatePostgresError> {
        if Layout::existing(dir)?.data_major()?.is_none() {
            return Err(PrivatePostgresError::NoData { directory: dir.to_owned() });
        }
        match Self::start(dir, Durability::Durable) {
            Err(PrivatePostgresError::InUse { .. }) => Ok(None),
            started => started.map(Some),
        }
    }

    /// Returns the socket directory of a data directory's Postgres, which need not run.
    ///
    /// # Errors
    /// The directory does not exist, or its path is too long.
    pub fn socket_dir_in(dir: &Path) -> Result<PathBuf, PrivatePostgresError> {
        Ok(Layout::existing(dir)?.socket_directory().to_owned())
    }

    /// Returns the directory of the socket, for use as a client's host.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.layout.socket_directory()
    }

    /// Returns the server's log file.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.layout.log()
    }

    /// Returns the process id of the postmaster.
    #[must_use]
    pub fn postmaster_pid(&self) -> u32 {
        self.server.pid()
    }

    /// Returns whether the postmaster still runs; nothing restarts it automatically.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Disconnects all clients, writes all data to disk and waits until the server has stopped: about
    /// 0.1 s, at most 20 s.
    ///
    /// # Errors
    /// [`PrivatePostgresError::StillRunning`] if it did not stop even by an immediate shutdown.
    pub fn stop(self) -> Result<(), PrivatePostgresError> {
        self.server.stop(&self.layout)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.server.stop(&self.layout) {
            tracing::error!(%error, "private postgres was left running");
        }
        // Closing is not enough: a child that another thread has forked, and that has not yet executed
        // its program, shares the lock for a moment. If this fails, closing still releases it later.
        let _ = self.lock.unlock();
    }
}
