//! Invalidates cached tokens that are changed by this replica, without waiting for the feed, which
//! would report the change a moment later. Used around each change by the code that changes tokens.

use std::sync::{Mutex, PoisonError};

use super::engine::Engine;
use crate::secret::TokenId;

/// Invalidates tokens when it is dropped, for every outcome of the change: done, failed, unknown, or
/// abandoned because the caller went away.
#[derive(Debug)]
pub struct PendingInvalidation<'a> {
    engine: &'a Engine,
    ids: Mutex<Vec<TokenId>>,
}

impl PendingInvalidation<'_> {
    /// Adds tokens that turned out to change as well.
    pub fn also(&self, ids: &[TokenId]) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(ids);
    }
}

impl Drop for PendingInvalidation<'_> {
    fn drop(&mut self) {
        let ids = self.ids.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.engine.cache.forget(ids);
        self.engine.changed.notify_one();
    }
}

impl Engine {
    /// Prepares for a change of a token by this replica. When the returned guard is dropped, the
    /// token's record is removed from the cache, and the other replicas are notified to poll.
    #[must_use]
    pub fn invalidate_token(&self, id: TokenId) -> PendingInvalidation<'_> {
        let invalidation = self.begin_invalidation();
        invalidation.also(&[id]);
        invalidation
    }

    /// Prepares for a change of tokens that are not known yet: [`PendingInvalidation::also`] adds them.
    #[must_use]
    pub fn begin_invalidation(&self) -> PendingInvalidation<'_> {
        PendingInvalidation { engine: self, ids: Mutex::default() }
    }
}
