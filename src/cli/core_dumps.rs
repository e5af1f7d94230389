//! Keeps the process's memory, which holds secrets and keys, out of core dumps and from debuggers
//! of the same account. Called first by every command.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Disables core dumps of this process, and access to its memory by other processes of its account.
///
/// Best effort: if a sandbox forbids one of the two, the other still applies; the packaged unit
/// sets the limit, too.
pub(super) fn disable() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
