//! What every task of the server uses: supervised tasks, catching of panics, the deadline of a call.
//! Called by all other layers. Knows nothing of tokens.

#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod deadline;
pub mod panics;
pub mod tasks;
