//! Connections that stand on a client certificate: those that a changed CA or revocation list would not let in any
//! more are ended. The listener adds them through `ServerTls`, which goes through them when it has read its files anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;

use atomic_waker::AtomicWaker;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

/// What let a connection in, and whether it still does.
#[derive(Debug)]
pub struct Admission {
    chain: Vec<CertificateDer<'static>>,
    withdrawn: AtomicBool,
    waker: AtomicWaker,
}

impl Admission {
    /// Tells whether nothing more may be read from the connection nor written to it.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Has a task woken when the admission is withdrawn: the one that serves the connection.
    pub fn wake(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// Withdraws the admission unless the certificate is good now; returns whether it still stands.
    pub(super) fn review(&self, verifier: &dyn ClientCertVerifier, now: UnixTime) -> bool {
        let Some((certificate, intermediates)) = self.chain.split_first() else { return true };
        let good = verifier.verify_client_cert(certificate, intermediates, now).is_ok();
        if !good {
            self.withdrawn.store(true, Ordering::Release);
            self.waker.wake();
        }
        good
    }
}

/// The admissions of all connections that are open.
#[derive(Debug, Default)]
pub(super) struct Admissions(Mutex<Vec<Weak<Admission>>>);

impl Admissions {
    /// Adds a connection; it leaves by being dropped.
    pub(super) fn add(&self, chain: Vec<CertificateDer<'static>>) -> Arc<Admission> {
        let withdrawn = AtomicBool::new(false);
        let admission = Arc::new(Admission { chain, withdrawn, waker: AtomicWaker::new() });
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list grows, those that have left make room.
        if open.len() == open.capacity() {
            open.retain(|admission| admission.strong_count() > 0);
        }
        open.push(Arc::downgrade(&admission));
        admission
    }

    /// Reviews all of them; returns how many have been withdrawn.
    pub(super) fn review(&self, verifier: &dyn ClientCertVerifier, now: UnixTime) -> usize {
        let open: Vec<_> = {
            let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().filter_map(Weak::upgrade).collect()
        };
        open.iter().filter(|admission| !admission.review(verifier, now)).count()
    }
}
