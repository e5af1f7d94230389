//! Keeps the process's memory, where secrets and keys stand, out of core dumps and from debuggers of the same account.
//! Called first of all, by every command.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Has the system write no memory of this process to a disk, nor let others of its account read it.
///
/// Best effort: where a sandbox forbids one of the two, the other holds; the packaged unit sets the limit, too.
pub(super) fn disable() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
