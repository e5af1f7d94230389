//! Grants callers database connections: fairly by account, so that no caller's flood delays others for
//! long, and some only for revocations. Called by the actions. Does not know what they are used for.

use std::ops::Deref;

use super::ActionError;
use crate::admission::fair_limiter::{ClientKey, Refused};
use crate::admission::fair_queue::{FairQueue, Permit};
use crate::store::{Purpose, STORE_DEADLINE, Store};

/// The limiters of the connections, one for each purpose.
#[derive(Debug)]
pub(super) struct StorePermits {
    store: Store,
    reads: FairQueue<ClientKey>,
    writes: FairQueue<ClientKey>,
    revocations: FairQueue<ClientKey>,
    /// Limits those revocations that may take long.
    bulk: FairQueue<ClientKey>,
}

/// The store, with a permit for a connection.
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

impl Admitted {
    /// Runs `attempt`, which is one transaction, and again after a deadlock.
    ///
    /// # Errors
    /// Those of `attempt`, and the database. The outcome may be unknown then, and a retry is safe.
    pub(super) async fn retrying<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, ActionError>
    where
        F: Future<Output = Result<T, ActionError>>,
    {
        self.store.retrying_within(STORE_DEADLINE, ActionError::is_conflict, attempt).await
    }
}

impl StorePermits {
    pub(super) fn new(store: Store) -> Self {
        // One connection is reserved for the server's own work.
        let limiter = |purpose| FairQueue::new(store.connections_of(purpose).saturating_sub(1));
        let revocations = store.connections_of(Purpose::Revocations);
        Self {
            reads: limiter(Purpose::Reads),
            writes: limiter(Purpose::Writes),
            revocations: FairQueue::new(revocations),
            bulk: FairQueue::new(revocations / 2),
            store,
        }
    }

    /// Waits for a permit to read.
    pub(super) async fn reads(&self, share: impl Into<ClientKey>) -> Result<Admitted, Refused> {
        self.admit(Purpose::Reads, &self.reads, share.into()).await
    }

    /// Waits for a permit to change something; also to repeat a change that is already made.
    pub(super) async fn writes(&self, share: impl Into<ClientKey>) -> Result<Admitted, Refused> {
        self.admit(Purpose::Writes, &self.writes, share.into()).await
    }

    /// Waits for a permit to revoke or disable a token: one of those reserved for this, unless one for
    /// any change is available at once.
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

    /// Waits for a permit to revoke many tokens at once; these use at most half of the revocation
    /// permits.
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
