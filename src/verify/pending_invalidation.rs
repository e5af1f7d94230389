//! Forgetting what is changed here: the change itself need not be waited for, since the feed would tell of it a moment
//! later. Used by whoever changes tokens, around the change.

use std::sync::{Mutex, PoisonError};

use super::engine::Engine;
use crate::secret::TokenId;

/// Has the engine forget tokens when it is dropped, whatever became of the change that it stands for: done,
/// failed, of unknown outcome, or abandoned because the caller went away.
#[derive(Debug)]
pub struct PendingInvalidation<'a> {
    engine: &'a Engine,
    ids: Mutex<Vec<TokenId>>,
}

impl PendingInvalidation<'_> {
    /// Has these be forgotten too: what turned out to change as well.
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
    /// Announces a change of a token that is about to be made here. When what is returned is dropped, the
    /// token's record is forgotten, and the other replicas are told to look.
    #[must_use]
    pub fn invalidate_token(&self, id: TokenId) -> PendingInvalidation<'_> {
        let invalidation = self.invalidate_what_changes();
        invalidation.also(&[id]);
        invalidation
    }

    /// Does the same for tokens that are not known yet: [`PendingInvalidation::also`] says which.
    #[must_use]
    pub fn invalidate_what_changes(&self) -> PendingInvalidation<'_> {
        PendingInvalidation { engine: self, ids: Mutex::default() }
    }
}
