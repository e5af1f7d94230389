//! Connections to the database for what callers have done: in turn by account, so that nobody's flood keeps others
//! waiting for long, and some for revocations alone. Called by the actions. Knows not what is done with them.

use std::ops::Deref;

use crate::admission::fair_limiter::{ClientKey, Refused};
use crate::admission::fair_queue::{FairQueue, Permit};
use crate::store::{Purpose, Store};

/// Who may use how many of the connections at once.
#[derive(Debug)]
pub(super) struct Admission {
    store: Store,
    reads: FairQueue<ClientKey>,
    writes: FairQueue<ClientKey>,
    revocations: FairQueue<ClientKey>,
    /// Of the revocations, those that may take long.
    bulk: FairQueue<ClientKey>,
}

/// The store, with a connection that is free for whoever was admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    store: Store,
    _permit: Permit<ClientKey>,
    _bulk: Option<Permit<ClientKey>>,
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
        let beside = |purpose| FairQueue::new(store.connections_of(purpose).saturating_sub(1));
        let revocations = store.connections_of(Purpose::Revocations);
        Self {
            reads: beside(Purpose::Reads),
            writes: beside(Purpose::Writes),
            revocations: FairQueue::new(revocations),
            bulk: FairQueue::new(revocations / 2),
            store,
        }
    }

    /// Waits for a connection to read by.
    pub(super) async fn reads(&self, share: impl Into<ClientKey>) -> Result<Admitted, Refused> {
        self.admit(Purpose::Reads, &self.reads, share.into()).await
    }

    /// Waits for a connection to change something by; also to say once more what is so already.
    pub(super) async fn writes(&self, share: impl Into<ClientKey>) -> Result<Admitted, Refused> {
        self.admit(Purpose::Writes, &self.writes, share.into()).await
    }

    /// Waits for a connection to put a token out of use by: one of those that are for nothing else, unless one for any
    /// change is free sooner.
    pub(super) async fn revocations(&self, share: impl Into<ClientKey>) -> Result<Admitted, Refused> {
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
    pub(super) async fn bulk_revocations(&self, share: impl Into<ClientKey>) -> Result<Admitted, Refused> {
        let share = share.into();
        let bulk = self.bulk.acquire(share).await?;
        let admitted = self.revocations(share).await?;
        Ok(Admitted { _bulk: Some(bulk), ..admitted })
    }

    async fn admit(
        &self,
        purpose: Purpose,
        limiter: &FairQueue<ClientKey>,
        share: ClientKey,
    ) -> Result<Admitted, Refused> {
        Ok(self.admitted(purpose, limiter.acquire(share).await?))
    }

    fn admitted(&self, purpose: Purpose, permit: Permit<ClientKey>) -> Admitted {
        Admitted { store: self.store.on(purpose), _permit: permit, _bulk: None }
    }
}
