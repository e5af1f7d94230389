//! Connections with a client certificate: those that a changed CA or revocation list no longer accepts are
//! ended. The listener adds them through `ServerTls`, which reviews them when it has read its files again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;

use atomic_waker::AtomicWaker;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

/// The certificate that a connection was accepted with, and whether it still is.
#[derive(Debug)]
pub struct Admission {
    chain: Vec<CertificateDer<'static>>,
    withdrawn: AtomicBool,
    waker: AtomicWaker,
}

impl Admission {
    /// Returns whether nothing more may be read from or written to the connection.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Registers the task that serves the connection, to be woken when the admission is withdrawn.
    pub fn wake(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// Withdraws the admission unless the certificate is valid now; returns whether it is.
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

/// The admissions of all open connections.
#[derive(Debug, Default)]
pub(super) struct Admissions(Mutex<Vec<Weak<Admission>>>);

impl Admissions {
    /// Adds a connection; dropping the result removes it.
    pub(super) fn add(&self, chain: Vec<CertificateDer<'static>>) -> Arc<Admission> {
        let withdrawn = AtomicBool::new(false);
        let admission = Arc::new(Admission { chain, withdrawn, waker: AtomicWaker::new() });
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list grows, entries of closed connections are removed.
        if open.len() == open.capacity() {
            open.retain(|admission| admission.strong_count() > 0);
        }
        open.push(Arc::downgrade(&admission));
        admission
    }

    /// Reviews all of them; returns how many were withdrawn.
    pub(super) fn review(&self, verifier: &dyn ClientCertVerifier, now: UnixTime) -> usize {
        let open: Vec<_> = {
            let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().filter_map(Weak::upgrade).collect()
        };
        open.iter().filter(|admission| !admission.review(verifier, now)).count()
    }
}
