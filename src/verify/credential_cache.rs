//! The credential that was proven last on a connection, so that who presents it again need not prove it again: half
//! of what a warm Verify computes. It is judged each time all the same. Kept with what is known of the peer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Credential;

/// The secret's text, which HPACK keeps for as long as the connection lives anyway, and the credential that it is.
struct Presented {
    text: Zeroizing<Box<[u8]>>,
    credential: Arc<Credential>,
}

/// What a connection's peer has proven. Its Debug tells nothing of it.
#[derive(Default)]
pub struct CredentialCache {
    last: ArcSwapOption<Presented>,
    /// Shared with the connection, which counts what is heard of a peer that is not known.
    known: Arc<AtomicBool>,
}

impl CredentialCache {
    /// Returns the credential that was proven by this text.
    pub(crate) fn recall(&self, text: &str) -> Option<Arc<Credential>> {
        let last = self.last.load();
        let Presented { text: proven, credential } = last.as_deref()?;
        bool::from(proven.ct_eq(text.as_bytes())).then(|| Arc::clone(credential))
    }

    /// Makes an empty one for a connection; `known` turns true when its peer has proven anything.
    #[must_use]
    pub fn new(known: Arc<AtomicBool>) -> Self {
        Self { last: ArcSwapOption::empty(), known }
    }

    /// Returns what turns true when the peer has proven anything.
    #[must_use]
    pub fn known(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.known)
    }

    /// Notes that something has been proven that need not be kept.
    pub fn note(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Keeps what has been proven, in place of what was before.
    pub(crate) fn remember(&self, text: &str, credential: Arc<Credential>) {
        self.note();
        let text = Zeroizing::new(text.as_bytes().into());
        self.last.store(Some(Arc::new(Presented { text, credential })));
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache").finish_non_exhaustive()
    }
}
