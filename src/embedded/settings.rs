//! What every part of the private Postgres goes by.

/// The superuser's name.
pub(super) const ROLE: &str = "tokend";

/// The port that names the socket file.
pub(super) const PORT: u16 = 5432;

/// The oldest major version that tokend runs on.
pub(super) const OLDEST_MAJOR: u32 = 14;

/// Says what the data must survive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A crash of the machine: every commit is on disk before it is answered.
    Durable,
    /// Nothing beyond this process: no fsync, more connections. For tests.
    Disposable,
}
