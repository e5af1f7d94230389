//! The database of a command that does not serve: a shared one, or a private Postgres, which
//! already runs or is started for the duration of the command.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::CommandError;
use crate::config::{DatabaseSettings, DatabaseTarget};
use crate::private_postgres::Cluster;
use crate::secret::Prefix;
use crate::store::ConnectSettings;

/// A database that can be queried.
pub(super) struct Database {
    /// How to connect to it.
    pub(super) settings: ConnectSettings,
    /// The prefix of secrets.
    pub(super) prefix: Prefix,
    /// Stops what was started for it.
    _started: Option<Cluster>,
}

/// Makes sure that the database runs, if it is a private one. Blocks.
pub(super) fn reach(settings: DatabaseSettings) -> Result<Database, CommandError> {
    let prefix = settings.prefix;
    match settings.target {
        DatabaseTarget::Shared(settings) => Ok(Database { settings: *settings, prefix, _started: None }),
        DatabaseTarget::Private(directory) => {
            forget_session_options()?;
            let started = Cluster::start_unless_running(&directory)?;
            let settings = private_settings(&Cluster::socket_dir_in(&directory)?);
            Ok(Database { settings, prefix, _started: started })
        }
    }
}

/// Returns how to connect to a private Postgres, by the directory of its socket.
pub(super) fn private_settings(socket_directory: &Path) -> ConnectSettings {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_directory)
        .port(Cluster::PORT)
        .username(Cluster::ROLE)
        .database(Cluster::DATABASE)
        .ssl_mode(PgSslMode::Disable)
        .application_name("tokend")
        .into()
}

/// Restarts this process without PGOPTIONS, which is meant for another Postgres: the driver sends
/// it to every server, and cannot be configured otherwise.
pub(super) fn forget_session_options() -> Result<(), CommandError> {
    const VARIABLE: &str = "PGOPTIONS";
    if env::var_os(VARIABLE).is_none() {
        return Ok(());
    }
    let program = env::current_exe().map_err(CommandError::SessionOptions)?;
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(CommandError::SessionOptions(command.args(arguments).env_remove(VARIABLE).exec()))
}
