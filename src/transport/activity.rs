//! What is going on on a connection: said by whoever serves it, looked at where it is found out whether its peer is
//! still there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whether calls begin or wait on a connection.
#[derive(Debug, Default)]
pub struct Activity {
    began: AtomicBool,
    waiting: AtomicUsize,
    idle: AtomicBool,
    overspent: AtomicBool,
}

/// A call that waits, until this is dropped.
#[derive(Debug)]
pub struct WaitingCall(Arc<Activity>);

impl Activity {
    /// Notes that a call has begun.
    pub fn call_began(&self) {
        if !self.began.load(Ordering::Relaxed) {
            self.began.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that a call goes on.
    #[must_use]
    pub fn call_waits(self: &Arc<Self>) -> WaitingCall {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        WaitingCall(Arc::clone(self))
    }

    /// Tells whether the connection has been without a call for too long.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Tells whether the connection has taken too much for one whose peer is not known.
    #[must_use]
    pub fn is_overspent(&self) -> bool {
        self.overspent.load(Ordering::Relaxed)
    }

    /// Tells whether calls wait.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn set_overspent(&self, overspent: bool) {
        self.overspent.store(overspent, Ordering::Relaxed);
    }

    /// Tells whether there was a call since this was asked last.
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
