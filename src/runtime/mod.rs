//! What every task of the server uses: supervised tasks, catching of panics, the deadline of a call.
//! Called by all other layers. Knows nothing of tokens.

#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod deadline;
pub mod panics;
pub mod tasks;

/// How many rows of a page are handled before other tasks of the thread have their turns: a longer turn delays urgent calls,
/// such as revocations, each time that they wait for Postgres.
pub const ROWS_PER_TURN: usize = 32;
