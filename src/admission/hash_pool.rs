//! A bounded pool for Argon2id: each hash takes 16 ms of a core and 19 MiB. Creation and the
//! engine's fallback each have a separate pool, so that neither can starve the other. Knows nothing
//! of what is hashed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tracing::Span;

use crate::metrics::HashingMetrics;
use crate::runtime::deadline;

/// How long a hash may wait for a permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many hashes may wait for each one that can run.
const QUEUE_PER_PERMIT: usize = 64;

/// The pool has no free capacity now; a later retry may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many tokens are being created or verified for the first time at once")]
pub struct Overloaded;

/// Runs hashes on blocking threads, with a limit of concurrent hashes and a bounded queue.
#[derive(Debug, Clone)]
pub struct HashPool {
    permits: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    size: usize,
    metrics: HashingMetrics,
}

impl HashPool {
    /// Creates a pool that runs `permits` hashes at a time (at least one).
    #[must_use]
    pub fn new(permits: usize, metrics: HashingMetrics) -> Self {
        let permits = permits.max(1);
        let size = permits.saturating_mul(QUEUE_PER_PERMIT + 1).min(Semaphore::MAX_PERMITS);
        let (permits, slots) = (Arc::new(Semaphore::new(permits)), Arc::new(Semaphore::new(size)));
        Self { permits, slots, size, metrics }
    }

    /// Returns how many hashes may run and wait at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.size
    }

    /// Runs `work` once a permit is free. Work that has started is finished even if nothing waits
    /// for it any more, and keeps its permit until then.
    ///
    /// # Errors
    /// [`Overloaded`] when the queue is full or no permit is free within 2 seconds.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let (slot, permit) = self.acquire().await.inspect_err(|_| self.metrics.refused())?;
        let counted = self.metrics.running();
        let span = Span::current();
        let hashed = spawn_blocking(move || {
            let _permits = (slot, permit, counted);
            span.in_scope(work)
        });
        // Fails only when the work panicked or the runtime is ending: in both cases the result is unknown.
        hashed.await.map_err(|_| Overloaded)
    }

    async fn acquire(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Overloaded> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| Overloaded)?;
        let _waiting = self.metrics.waiting();
        let permit = tokio::time::timeout(
            deadline::at_most(PERMIT_TIMEOUT),
            Arc::clone(&self.permits).acquire_owned(),
        )
        .await;
        let permit = permit.map_err(|_| Overloaded)?.map_err(|_| Overloaded)?;
        Ok((slot, permit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_recovers() {
        let pool = HashPool::new(1, crate::metrics::Metrics::new().unwrap().work.creation.clone());
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let running: Vec<_> = (0..=QUEUE_PER_PERMIT)
            .map(|_| {
                let (pool, wait) = (pool.clone(), Arc::clone(&wait));
                tokio::spawn(async move { pool.run(move || wait.lock().unwrap().recv()).await })
            })
            .collect();
        while pool.slots.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| ()).await, Err(Overloaded));
        drop(release);
        for work in running {
            assert!(work.await.unwrap().is_ok());
        }
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }
}
