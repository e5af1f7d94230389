//! Settings shared by all parts of the private Postgres.

/// The superuser's name.
pub(super) const ROLE: &str = "tokend";

/// The port number in the socket's file name.
pub(super) const PORT: u16 = 5432;

/// The oldest supported major version.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// What the data must survive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A crash of the machine: every commit is on disk before it is acknowledged.
    Durable,
    /// Nothing beyond this process: no fsync, no autovacuum, more connections. For tests.
    Disposable,
}
