//! Taking a private Postgres over to a newer major version, with both installed: a new cluster beside the old one,
//! `pg_upgrade` from the one into the other, and then the two change places in one step. Killed at any moment it leaves
//! the old data where they were, or the new ones in their place and the old ones kept. Called by `tokend data`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::account::Account;
use super::binaries::Binaries;
use super::error::EmbeddedError;
use super::layout::{Layout, last_lines};
use super::previous;
use super::server::{self, Server};
use super::settings::{Durability, ROLE};

/// What an upgrade has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// The major version of before.
    pub from: u32,
    /// The major version of now.
    pub to: u32,
    /// Where the data of before are kept.
    pub kept: PathBuf,
}

/// Takes the data in `dir` over to the newest Postgres of this machine; nobody may be serving them.
///
/// Blocks for as long as copying the data takes; the directory needs room for both.
///
/// # Errors
/// [`EmbeddedError`]: the data are then as they were.
pub fn upgrade(dir: &Path) -> Result<Upgraded, EmbeddedError> {
    let layout = Layout::existing(dir)?;
    let lock = layout.lock()?;
    let account = Account::choose(&layout.data())?;
    account.require_access(layout.root())?;
    let old_major =
        layout.data_major()?.ok_or_else(|| EmbeddedError::NoData { directory: layout.root().to_owned() })?;
    if let Some(kept) = layout.keep_replaced_data(old_major)? {
        tracing::info!(directory = %kept.display(), "an earlier upgrade was broken off at its last step, and is finished");
    }
    let old = Binaries::find(&account, &layout)?;
    let new = Binaries::newest(&account, old_major)
        .ok_or_else(|| EmbeddedError::NoNewer { directory: layout.data(), data: old_major })?;
    let kept = layout.kept_data(old_major);
    if kept.exists() {
        return Err(EmbeddedError::Kept { directory: kept });
    }
    previous::end(&layout.upgraded_data(), &account, &new)?;
    previous::end(&layout.data(), &account, &old)?;
    // What a crash has left is recovered: pg_upgrade takes data only as a clean shutdown leaves them.
    layout.fresh_socket_directory(&account)?;
    Server::start(&layout, &account, &old, Durability::Durable)?.stop(&layout)?;
    tracing::info!(
        from = old_major,
        to = new.major(),
        "taking the data over; the old ones stay until it is done"
    );
    make_new(&layout, &account, &old, &new)?;
    take_over(&layout, &account, &old, &new)?;
    exchange(&layout.upgraded_data(), &layout.data())?;
    layout.sync()?;
    layout.keep_replaced_data(new.major())?;
    analyze(&layout, &account, &new)?;
    drop(lock);
    Ok(Upgraded { from: old_major, to: new.major(), kept })
}

/// Returns where upgrades have kept data.
///
/// # Errors
/// [`EmbeddedError`]: there is no data directory, or it cannot be read.
pub fn kept(dir: &Path) -> Result<Vec<PathBuf>, EmbeddedError> {
    Layout::existing(dir)?.all_kept_data()
}

/// Deletes the data that upgrades have kept; returns where they were.
///
/// # Errors
/// [`EmbeddedError`]; nothing of the data in use is touched.
pub fn delete_kept(dir: &Path) -> Result<Vec<PathBuf>, EmbeddedError> {
    let layout = Layout::existing(dir)?;
    let _lock = layout.lock()?;
    if let Some(major) = layout.data_major()? {
        layout.keep_replaced_data(major)?;
    }
    let kept = layout.all_kept_data()?;
    for directory in &kept {
        fs::remove_dir_all(directory).map_err(EmbeddedError::io("remove", directory))?;
    }
    Ok(kept)
}

fn make_new(layout: &Layout, account: &Account, old: &Binaries, new: &Binaries) -> Result<(), EmbeddedError> {
    let checksums = has_checksums(layout, account, old)?;
    layout.fresh_upgrade_directory(account)?;
    let mut command = account.mortal_command(&new.initdb(), "KILL");
    server::settings_of_initdb(&mut command);
    if checksums {
        command.arg("--data-checksums");
    } else if new.major() >= 18 {
        // The default of before.
        command.arg("--no-data-checksums");
    }
    command.arg("--pgdata").arg(layout.upgraded_data());
    run(command, &new.initdb())
}

/// Both clusters must have checksums, or neither.
fn has_checksums(layout: &Layout, account: &Account, old: &Binaries) -> Result<bool, EmbeddedError> {
    let program = old.program("pg_controldata");
    let output =
        account.command(&program).arg(layout.data()).output().map_err(EmbeddedError::io("run", &program))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find_map(|line| line.strip_prefix("Data page checksum version:"));
    match version.map(str::trim) {
        Some(version) => Ok(version != "0"),
        None => Err(EmbeddedError::Upgrade { program, output: last_lines(&output.stderr) }),
    }
}

fn take_over(
    layout: &Layout,
    account: &Account,
    old: &Binaries,
    new: &Binaries,
) -> Result<(), EmbeddedError> {
    let program = new.program("pg_upgrade");
    layout.fresh_socket_directory(account)?;
    let mut command = account.mortal_command(&program, "KILL");
    command
        // It writes what it finds wrong where it runs.
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

/// Has two directories change places in one step: there is no moment without data.
fn exchange(one: &Path, other: &Path) -> Result<(), EmbeddedError> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(|error| EmbeddedError::io("put the new database in place of", other)(io::Error::from(error)))
}

/// Has the planner know the tables: its statistics are not taken over.
fn analyze(layout: &Layout, account: &Account, new: &Binaries) -> Result<(), EmbeddedError> {
    layout.fresh_socket_directory(account)?;
    let server = Server::start(layout, account, new, Durability::Durable)?;
    let program = new.program("vacuumdb");
    let mut command = account.command(&program);
    command
        .args(["--all", "--analyze-only", "--quiet", "--username", ROLE, "--port", "5432", "--host"])
        .arg(layout.socket_directory());
    if let Err(error) = run(command, &program) {
        tracing::warn!(%error, "the tables were not analyzed; autovacuum will, in time");
    }
    server.stop(layout)
}

fn run(mut command: Command, program: &Path) -> Result<(), EmbeddedError> {
    let output = command.output().map_err(EmbeddedError::io("run", program))?;
    if output.status.success() {
        return Ok(());
    }
    // pg_upgrade says on standard output what is wrong.
    let said = [output.stdout, output.stderr].concat();
    Err(EmbeddedError::Upgrade { program: program.to_owned(), output: last_lines(&said) })
}
