//! The activity of a connection: set by the task that serves it, read where its peer's liveness is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether calls begin or wait on a connection.
#[derive(Debug, Default)]
pub struct Activity {
    began: AtomicBool,
    waiting: AtomicUsize,
    idle: AtomicBool,
    overspent: AtomicBool,
    paused: AtomicBool,
}

/// A call that waits, until this is dropped.
#[derive(Debug)]
pub struct WaitingCall(Arc<Activity>);

impl Activity {
    /// Records that a call has begun.
    pub fn call_began(&self) {
        if !self.began.load(Ordering::Relaxed) {
            self.began.store(true, Ordering::Relaxed);
        }
    }

    /// Records that a call waits.
    #[must_use]
    pub fn call_waits(self: &Arc<Self>) -> WaitingCall {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        WaitingCall(Arc::clone(self))
    }

    /// Returns whether the connection has had no call for too long.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Returns whether the connection of an unauthenticated client has taken too much memory.
    #[must_use]
    pub fn is_overspent(&self) -> bool {
        self.overspent.load(Ordering::Relaxed)
    }

    /// Returns whether calls wait.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn set_overspent(&self, overspent: bool) {
        self.overspent.store(overspent, Ordering::Relaxed);
    }

    /// Returns whether reading has paused since the last check, and should go on before calls begin.
    pub(crate) fn take_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed) && self.paused.swap(false, Ordering::Relaxed)
    }

    pub(super) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Returns whether there was a call since the last check.
    pub(crate) fn take_used(&self) -> bool {
        self.began.swap(false, Ordering::Relaxed) || self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
