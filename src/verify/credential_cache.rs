//! The credential that was last proven on a connection, so that a client that presents it again need
//! not prove it again: half the work of a warm Verify. It is still judged at each call. Stored with the
//! state of the peer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::Credential;

/// The secret's text, which HPACK keeps for as long as the connection lives anyway, and its credential.
struct Presented {
    text: Zeroizing<Box<[u8]>>,
    credential: Arc<Credential>,
}

/// What a connection's peer has proven. Its Debug output reveals nothing.
#[derive(Default)]
pub struct CredentialCache {
    last: ArcSwapOption<Presented>,
    /// Shared with the connection, which limits the input of an unauthenticated client.
    authenticated: Arc<AtomicBool>,
}

impl CredentialCache {
    /// Returns the credential that this text has proven.
    pub(crate) fn recall(&self, text: &str) -> Option<Arc<Credential>> {
        let last = self.last.load();
        let Presented { text: proven, credential } = last.as_deref()?;
        bool::from(proven.ct_eq(text.as_bytes())).then(|| Arc::clone(credential))
    }

    /// Creates an empty cache for a connection; `authenticated` becomes true when its peer has proven any
    /// credential.
    #[must_use]
    pub fn new(authenticated: Arc<AtomicBool>) -> Self {
        Self { last: ArcSwapOption::empty(), authenticated }
    }

    /// Returns the flag that becomes true when the peer has proven any credential.
    #[must_use]
    pub fn authenticated(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.authenticated)
    }

    /// Returns whether the peer has proven any credential.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    /// Notes that the peer has proven a credential that need not be kept.
    pub fn note(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }

    /// Keeps what has been proven, instead of what was kept before.
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
