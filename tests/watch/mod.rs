//! Watching from outside: every change is reported, in order, to the callers that may see it,
//! across restarts, too.

mod changes;
mod positions;
mod servers;
pub(crate) mod watcher;
