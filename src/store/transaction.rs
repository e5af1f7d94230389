//! The transaction in which an action reads, judges and changes: the actions call its steps, each in the
//! file of its subject, in the lock order (docs/design/revocation.md). Knows no action.

use std::time::Duration;

use super::pooling::Transaction;
use super::{CONFLICT_ATTEMPTS, STORE_DEADLINE, Store, StoreError};
use crate::domain::CredentialError;
use crate::domain::root::LastRootError;
use crate::runtime::deadline;

/// Why a step of a transaction stopped it.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// Postgres gave no usable response.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller's credential is no longer valid.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It would end the last active root token.
    #[error(transparent)]
    LastRoot(#[from] LastRootError),
}

impl From<sqlx::Error> for TransactionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Transaction {
    /// Has the later statements of this transaction scan an index in its order, and stop once they have
    /// enough rows. By an estimate, or of a table without statistics, the planner takes a bitmap or the
    /// whole table, which reads all rows of an owner and sorts them before the first one is returned.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub(super) async fn scan_in_order(&mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "SELECT set_config('enable_bitmapscan', 'off', true) AS bitmaps,
                 set_config('enable_seqscan', 'off', true) AS sequential"
        )
        .fetch_one(self)
        .await?;
        Ok(())
    }
}

impl Store {
    /// Begins a transaction whose statements last as long as [`STORE_DEADLINE`] at most.
    ///
    /// # Errors
    /// [`StoreError`]: no connection.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        self.begin_within(STORE_DEADLINE).await
    }

    /// Begins a transaction with another deadline for its statements.
    ///
    /// # Errors
    /// [`StoreError`]: no connection.
    pub async fn begin_within(&self, deadline: Duration) -> Result<Transaction, StoreError> {
        // Never 0, which would mean no limit.
        let timeout = deadline::at_most(deadline).max(Duration::from_millis(1));
        Ok(self.pool()?.begin(timeout).await?)
    }

    /// Runs `attempt`, which is one transaction, and again after a deadlock, which `is_conflict`
    /// recognizes. All attempts together last `deadline` at most.
    ///
    /// # Errors
    /// Those of `attempt`, and [`StoreError::DeadlineExceeded`]: the outcome may be unknown then.
    pub async fn retrying_within<T, E, F>(
        &self,
        deadline: Duration,
        is_conflict: fn(&E) -> bool,
        attempt: impl Fn() -> F,
    ) -> Result<T, E>
    where
        E: From<StoreError>,
        F: Future<Output = Result<T, E>>,
    {
        let attempts = async {
            for _ in 1..CONFLICT_ATTEMPTS {
                match attempt().await {
                    Err(error) if is_conflict(&error) => {}
                    outcome => return outcome,
                }
            }
            attempt().await
        };
        let outcome = tokio::time::timeout(deadline::at_most(deadline), attempts).await;
        outcome.unwrap_or_else(|_| Err(StoreError::DeadlineExceeded.into()))
    }
}
