//! The locks that each migration takes on tables that already hold rows, and for how long. Declared
//! here, because a plan must not try them; `tests/keys/upgrade.rs` compares this with what each
//! migration does.

use std::fmt;

/// A lock on an existing table, held until its migration is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLock {
    /// The table.
    pub table: &'static str,
    /// The mode, which decides what others can still do.
    pub mode: LockMode,
    /// The work under the lock, which decides how long it takes.
    pub work: TableWork,
}

/// The lock modes that block other statements, by their names in Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Reads continue, writes wait.
    Share,
    /// Reads continue, writes wait; the mode for adding foreign keys and triggers.
    ShareRowExclusive,
    /// Reads and writes wait.
    AccessExclusive,
}

/// What a migration does with a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableWork {
    /// Nothing.
    None,
    /// It reads all rows.
    Reads,
    /// It builds indexes of them.
    Indexes,
    /// It rewrites all rows.
    Rewrites,
}

impl LockMode {
    /// Returns the locks of others that a lock in this mode waits for, by their names in `pg_locks`.
    pub(super) fn conflicts(self) -> &'static [&'static str] {
        // Each mode conflicts with those of the weaker ones, and more (PostgreSQL, "Conflicting Lock
        // Modes").
        const ALL: [&str; 8] = [
            "RowExclusiveLock",
            "ShareUpdateExclusiveLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
            "ShareLock",
            "RowShareLock",
            "AccessShareLock",
        ];
        match self {
            Self::Share => &ALL[..5],
            Self::ShareRowExclusive => &ALL[..6],
            Self::AccessExclusive => &ALL,
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        })
    }
}

impl fmt::Display for TableWork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "a moment",
            Self::Reads => "while it is read",
            Self::Indexes => "while indexes are made",
            Self::Rewrites => "while it is rewritten",
        })
    }
}

/// Returns the locks of a migration; none for one that only creates new objects.
pub(super) fn locks(version: i64) -> &'static [TableLock] {
    LOCKS.iter().find(|(of, _)| *of == version).map_or(&[], |(_, locks)| locks)
}

const LOCKS: [(i64, &[TableLock]); 10] = [
    (3, &[lock("tokens", LockMode::ShareRowExclusive, TableWork::None)]),
    (10, &[lock("tokens", LockMode::AccessExclusive, TableWork::Indexes)]),
    (11, &[lock("audit_seals", LockMode::AccessExclusive, TableWork::Reads)]),
    // It has one row.
    (13, &[lock("server_mark", LockMode::AccessExclusive, TableWork::Rewrites)]),
    (14, &[lock("token_events", LockMode::Share, TableWork::Indexes)]),
    (15, &[lock("token_events", LockMode::Share, TableWork::Indexes)]),
    (16, &[lock("tokens", LockMode::AccessExclusive, TableWork::Rewrites)]),
    (19, &[lock("tokens", LockMode::AccessExclusive, TableWork::None)]),
    (
        20,
        &[
            lock("token_events", LockMode::AccessExclusive, TableWork::None),
            lock("tokens", LockMode::AccessExclusive, TableWork::Indexes),
        ],
    ),
    (
        24,
        &[
            lock("policies", LockMode::AccessExclusive, TableWork::None),
            lock("tokens", LockMode::AccessExclusive, TableWork::Indexes),
        ],
    ),
];

const fn lock(table: &'static str, mode: LockMode, work: TableWork) -> TableLock {
    TableLock { table, mode, work }
}
