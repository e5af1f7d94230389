//! What every task of the server stands on: tasks that must live, calls that panic, the deadline of a call.
//! Called by everything that runs. Knows nothing of tokens.

#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod deadline;
pub mod panics;
pub mod tasks;
