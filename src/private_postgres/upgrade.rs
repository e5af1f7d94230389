//! Upgrades a private Postgres to a newer major version, with both installed: creates a new cluster next
//! to the old one, runs `pg_upgrade`, and then exchanges the two in one step. If killed at any moment, it
//! leaves the old data in use, or the new data in use and the old ones kept. Called by `tokend data`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::account::Account;
use super::binaries::Binaries;
use super::error::PrivatePostgresError;
use super::layout::{Layout, last_lines};
use super::previous;
use super::server::{self, Server};
use super::settings::{Durability, ROLE};

/// The result of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// The old major version.
    pub from: u32,
    /// The new major version.
    pub to: u32,
    /// Where the old data are kept.
    pub old_data: PathBuf,
}

/// Upgrades the data in `dir` to the newest Postgres of this machine; no server may use them meanwhile.
///
/// Blocks for as long as copying the data takes; the disk needs space for both copies.
///
/// # Errors
/// [`PrivatePostgresError`]: the data are then unchanged.
pub fn upgrade(dir: &Path) -> Result<Upgraded, PrivatePostgresError> {
    let layout = Layout::existing(dir)?;
    let lock = layout.lock()?;
    let account = Account::choose(&layout.data())?;
    account.require_access(layout.root())?;
    let old_major = layout
        .data_major()?
        .ok_or_else(|| PrivatePostgresError::NoData { directory: layout.root().to_owned() })?;
    if let Some(old_data) = layout.keep_replaced_data(old_major)? {
        tracing::info!(directory = %old_data.display(), "finished an earlier upgrade that was interrupted at its \
             last step");
    }
    let old = Binaries::find(&account, &layout)?;
    let new = Binaries::newest(&account, old_major)
        .ok_or_else(|| PrivatePostgresError::NoNewer { directory: layout.data(), data: old_major })?;
    let old_data = layout.old_data_dir(old_major);
    if old_data.exists() {
        return Err(PrivatePostgresError::OldDataExists { directory: old_data });
    }
    previous::end(&layout.upgraded_data(), &account, &new)?;
    previous::end(&layout.data(), &account, &old)?;
    // Recovers after a crash: `pg_upgrade` accepts data only after a clean shutdown.
    layout.fresh_socket_directory(&account)?;
    Server::start(&layout, &account, &old, Durability::Durable)?.stop(&layout)?;
    tracing::info!(
        from = old_major,
        to = new.major(),
        "upgrading the data; the old data stays until this is done"
    );
    make_new(&layout, &account, &old, &new)?;
    take_over(&layout, &account, &old, &new)?;
    exchange(&layout.upgraded_data(), &layout.data())?;
    layout.sync()?;
    layout.keep_replaced_data(new.major())?;
    analyze(&layout, &account, &new)?;
    drop(lock);
    Ok(Upgraded { from: old_major, to: new.major(), old_data })
}

/// Returns the directories of the data that upgrades have kept.
///
/// # Errors
/// [`PrivatePostgresError`]: there is no data directory, or it cannot be read.
pub fn old_data(dir: &Path) -> Result<Vec<PathBuf>, PrivatePostgresError> {
    Layout::existing(dir)?.all_old_data()
}

/// Deletes the data that upgrades have kept; returns their directories.
///
/// # Errors
/// [`PrivatePostgresError`]; the data in use are not touched.
pub fn delete_old_data(dir: &Path) -> Result<Vec<PathBuf>, PrivatePostgresError> {
    let layout = Layout::existing(dir)?;
    let _lock = layout.lock()?;
    if let Some(major) = layout.data_major()? {
        layout.keep_replaced_data(major)?;
    }
    let old_data = layout.all_old_data()?;
    for directory in &old_data {
        fs::remove_dir_all(directory).map_err(PrivatePostgresError::io("remove", directory))?;
    }
    Ok(old_data)
}

fn make_new(
    layout: &Layout,
    account: &Account,
    old: &Binaries,
    new: &Binaries,
) -> Result<(), PrivatePostgresError> {
    let checksums = has_checksums(layout, account, old)?;
    layout.fresh_upgrade_directory(account)?;
    let mut command = account.command_with_death_signal(&new.initdb(), "KILL");
    server::settings_of_initdb(&mut command);
    if checksums {
        command.arg("--data-checksums");
    } else if new.major() >= 18 {
        // The default of older versions.
        command.arg("--no-data-checksums");
    }
    command.arg("--pgdata").arg(layout.upgraded_data());
    run(command, &new.initdb())
}

/// Both clusters must have checksums, or neither: returns whether the old one has.
fn has_checksums(layout: &Layout, account: &Account, old: &Binaries) -> Result<bool, PrivatePostgresError> {
    let program = old.program("pg_controldata");
    let output = account
        .command(&program)
        .arg(layout.data())
        .output()
        .map_err(PrivatePostgresError::io("run", &program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find_map(|line| line.strip_prefix("Data page checksum version:"));
    match version.map(str::trim) {
        Some(version) => Ok(version != "0"),
        None => Err(PrivatePostgresError::Upgrade { program, output: last_lines(&output.stderr) }),
    }
}

fn take_over(
    layout: &Layout,
    account: &Account,
    old: &Binaries,
    new: &Binaries,
) -> Result<(), PrivatePostgresError> {
    let program = new.program("pg_upgrade");
    layout.fresh_socket_directory(account)?;
    let mut command = account.command_with_death_signal(&program, "KILL");
    command
        // It writes its error reports into its working directory.
        .current_dir(layout.upgrade_directory())
        .args(["--username", ROLE, "--old-bindir"])
        .arg(old.directory())
        .arg("--new-bindir")
        .arg(new.directory())
        .arg("--old-datadir")
        .arg(layout.data())
        .arg("--new-datadir")
        .arg(layout.upgraded_data())
        .arg("--socketdir")
        .arg(layout.socket_directory())
        .args(["--old-port", "5432", "--new-port", "5433"]);
    run(command, &program)
}

/// Exchanges two directories in one step: there is no moment without data.
fn exchange(one: &Path, other: &Path) -> Result<(), PrivatePostgresError> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).map_err(|error| {
        PrivatePostgresError::io("put the new database in place of", other)(io::Error::from(error))
    })
}

/// Collects the planner's statistics: they are not upgraded.
fn analyze(layout: &Layout, account: &Account, new: &Binaries) -> Result<(), PrivatePostgresError> {
    layout.fresh_socket_directory(account)?;
    let server = Server::start(layout, account, new, Durability::Durable)?;
    let program = new.program("vacuumdb");
    let mut command = account.command(&program);
    command
        .args(["--all", "--analyze-only", "--quiet", "--username", ROLE, "--port", "5432", "--host"])
        .arg(layout.socket_directory());
    if let Err(error) = run(command, &program) {
        tracing::warn!(%error, "the tables were not analyzed; autovacuum will analyze them later");
    }
    server.stop(layout)
}

fn run(mut command: Command, program: &Path) -> Result<(), PrivatePostgresError> {
    let output = command.output().map_err(PrivatePostgresError::io("run", program))?;
    if output.status.success() {
        return Ok(());
    }
    // `pg_upgrade` reports errors on standard output.
    let printed = [output.stdout, output.stderr].concat();
    Err(PrivatePostgresError::Upgrade { program: program.to_owned(), output: last_lines(&printed) })
}
