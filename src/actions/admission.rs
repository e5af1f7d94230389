//! Connections to the database for what callers have done: in turn by account, so that nobody's flood keeps others
//! waiting for long, and some for revocations alone. Called by the actions. Knows not what is done with them.

use std::ops::Deref;

use crate::limiter::{Limiter, Permit};
use crate::shares::{Refused, Share};
use crate::store::{Purpose, Store};

/// Who may use how many of the connections at once.
#[derive(Debug)]
pub(super) struct Admission {
    store: Store,
    reads: Limiter<Share>,
    writes: Limiter<Share>,
    revocations: Limiter<Share>,
    /// Of the revocations, those that may take long.
    bulk: Limiter<Share>,
}

/// The store, with a connection that is free for whoever was admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    store: Store,
    _permit: Permit<Share>,
    _bulk: Option<Permit<Share>>,
}

impl Deref for Admitted {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Admission {
    pub(super) fn new(store: Store) -> Self {
        // One is left to what the server does by itself.
        let beside = |purpose| Limiter::new(store.connections_of(purpose).saturating_sub(1));
        let revocations = store.connections_of(Purpose::Revocations);
        Self {
            reads: beside(Purpose::Reads),
            writes: beside(Purpose::Writes),
            revocations: Limiter::new(revocations),
            bulk: Limiter::new(revocations / 2),
            store,
        }
    }

    /// Waits for a connection to read by.
    pub(super) async fn reads(&self, share: impl Into<Share>) -> Result<Admitted, Refused> {
        self.admit(Purpose::Reads, &self.reads, share.into()).await
    }

    /// Waits for a connection to change something by; also to say once more what is so already.
    pub(super) async fn writes(&self, share: impl Into<Share>) -> Result<Admitted, Refused> {
        self.admit(Purpose::Writes, &self.writes, share.into()).await
    }

    /// Waits for a connection to put a token out of use by: one of those that are for nothing else, unless one for any
    /// change is free sooner.
    pub(super) async fn revocations(&self, share: impl Into<Share>) -> Result<Admitted, Refused> {
        let share = share.into();
        for (purpose, limiter) in [(Purpose::Revocations, &self.revocations), (Purpose::Writes, &self.writes)]
        {
            if let Some(permit) = limiter.try_acquire(share) {
                return Ok(self.admitted(purpose, permit));
            }
        }
        self.admit(Purpose::Revocations, &self.revocations, share).await
    }

    /// Does the same for many tokens at once, which leaves half of those connections to others.
    pub(super) async fn bulk_revocations(&self, share: impl Into<Share>) -> Result<Admitted, Refused> {
        let share = share.into();
        let bulk = self.bulk.acquire(share).await?;
        let admitted = self.revocations(share).await?;
        Ok(Admitted { _bulk: Some(bulk), ..admitted })
    }

    async fn admit(
        &self,
        purpose: Purpose,
        limiter: &Limiter<Share>,
        share: Share,
    ) -> Result<Admitted, Refused> {
        Ok(self.admitted(purpose, limiter.acquire(share).await?))
    }

    fn admitted(&self, purpose: Purpose, permit: Permit<Share>) -> Admitted {
        Admitted { store: self.store.on(purpose), _permit: permit, _bulk: None }
    }
}
