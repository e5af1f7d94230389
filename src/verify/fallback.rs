//! The fallback for a token whose MAC was made with a key that is not in the ring: the durable verifier
//! decides, once, and a new MAC is written. Called only by the engine. Limited, since wrong secrets
//! come here too: one attempt at a time per id, a fair share of the queue per caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::VerdictError;
use crate::admission::fair_limiter::{ClientKey, FairLimiter, Permit, Refused};
use crate::admission::hash_pool::{HashPool, Overloaded};
use crate::secret::{CurrentKeyring, DurableCost, MacMatch, Secret, TokenId};
use crate::store::{MacChange, Store};

/// How many attempts may wait or run at once.
const MAX_WAITING: usize = 128;

/// How long an attempt may wait for another one on the same id.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Proves secrets by the durable verifier.
#[derive(Debug, Clone)]
pub(super) struct Fallback {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    keyring: Arc<CurrentKeyring>,
    hashing: HashPool,
    limit: DurableCost,
    limiter: FairLimiter<ClientKey>,
    attempts: Mutex<Attempts>,
}

/// The lock of each id, and how many attempts hold or wait for it. An entry is removed with its last
/// attempt, so there are never more entries than permits.
type Attempts = HashMap<TokenId, (Arc<Semaphore>, usize)>;

impl Fallback {
    pub(super) fn new(
        store: Store,
        keyring: Arc<CurrentKeyring>,
        hashing: HashPool,
        limit: DurableCost,
    ) -> Self {
        let (limiter, attempts) = (FairLimiter::new(MAX_WAITING), Mutex::default());
        Self { inner: Arc::new(Inner { store, keyring, hashing, limit, limiter, attempts }) }
    }

    /// Returns whether the durable verifier accepts the secret; if so, a new MAC has been written, or
    /// the reason why not has been logged.
    pub(super) async fn prove(&self, secret: Secret, share: ClientKey) -> Result<bool, VerdictError> {
        let permit = Attempt::take(&self.inner, secret.id(), share)?;
        let inner = Arc::clone(&self.inner);
        // A separate task: if the caller goes away, the next attempt must not begin while this one's
        // hash still runs.
        let attempt = tokio::spawn(async move { inner.attempt(secret, permit).await }.in_current_span());
        attempt.await.map_err(|_| VerdictError::Overloaded(Overloaded))?
    }
}

impl Inner {
    async fn attempt(&self, secret: Secret, permit: Attempt) -> Result<bool, VerdictError> {
        let _lock =
            tokio::time::timeout(LOCK_TIMEOUT, permit.lock.acquire()).await.map_err(|_| Overloaded)?;
        let id = secret.id();
        // Read now, not before the wait: the previous attempt may have written a MAC that decides.
        let Some((old, durable_hash)) = self.store.load_verifiers(id).await? else { return Ok(false) };
        match self.keyring.peek().check(&secret, &old) {
            MacMatch::Primary | MacMatch::Older => return Ok(true),
            MacMatch::Mismatch => return Ok(false),
            MacMatch::UnknownKey => {}
        }
        let limit = self.limit;
        let hashed = move || (durable_hash.verify(&secret, limit), secret);
        let (verified, secret) = self.hashing.run(hashed).await?;
        if !verified? {
            return Ok(false);
        }
        let change = MacChange { id, old, new: self.keyring.peek().mac(&secret) };
        if let Err(error) = self.store.replace_macs(&[change]).await {
            tracing::warn!(token.id = %id, error = &error as &dyn std::error::Error,
                "a new MAC was not written; the next Verify of this token will be slow too");
        }
        Ok(true)
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit to attempt an id, released when dropped.
struct Attempt {
    inner: Arc<Inner>,
    id: TokenId,
    /// Locked by the attempt that runs for this id.
    lock: Arc<Semaphore>,
    _permit: Permit<ClientKey>,
}

impl Attempt {
    fn take(inner: &Arc<Inner>, id: TokenId, share: ClientKey) -> Result<Self, Refused> {
        let permit = inner.limiter.take(share)?;
        let mut attempts = inner.attempts();
        let (lock, waiting) = attempts.entry(id).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
        *waiting += 1;
        Ok(Self { inner: Arc::clone(inner), id, lock: Arc::clone(lock), _permit: permit })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut attempts = self.inner.attempts();
        if let Some((_, waiting)) = attempts.get_mut(&self.id) {
            *waiting -= 1;
            if *waiting == 0 {
                attempts.remove(&self.id);
            }
        }
    }
}
