//! The transaction in which an action reads, judges and changes: the actions call its steps, each in the
//! file of its subject, in the lock order (docs/design/revocation.md). Knows no action.

use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use sqlx::postgres::{PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Error, Execute, Executor, Postgres, SqlStr};

use super::clock::Clock;
use super::connect_settings::PoolerMode;
use super::pooling::{Output, Pool, Unnamed, begin_statement};
use super::{CONFLICT_ATTEMPTS, STORE_DEADLINE, Store, StoreError};
use crate::domain::CredentialError;
use crate::domain::root::LastRootError;
use crate::runtime::deadline;
use crate::telemetry::notices;

/// A transaction; rolled back unless it is committed.
#[derive(Debug)]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    pooling: PoolerMode,
    clock: Clock,
    /// Whether it has appended to the audit log, as every change does.
    changed: bool,
}

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

impl Pool {
    pub(super) async fn begin(&self, timeout: Duration) -> Result<Transaction, Error> {
        let inner = self.connections.begin_with(begin_statement(self.pooling, timeout)).await?;
        Ok(Transaction { inner, pooling: self.pooling, clock: self.clock.clone(), changed: false })
    }
}

impl Transaction {
    /// Returns the accepted state of the database's clock.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Records that something was changed.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
    }

    /// Commits, and waits for the standbys that the server waits for. The result of a transaction that
    /// found its work already done acknowledges the work of another one, which may still wait for a
    /// standby, or whose wait may have been cancelled; so this one writes something to the WAL, after
    /// that work, and waits for it instead.
    ///
    /// # Errors
    /// [`StoreError::Unconfirmed`]: that wait was cancelled, which Postgres reports by a warning and no
    /// error.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        if !self.changed {
            sqlx::query!("SELECT pg_logical_emit_message(true, 'tokend', '') IS NULL AS written")
                .fetch_one(&mut self)
                .await?;
        }
        self.commit_unacknowledged().await
    }

    /// Commits a transaction of a job, whose result nobody acts on before it is confirmed.
    ///
    /// # Errors
    /// [`StoreError::Unconfirmed`], as for [`Self::commit`].
    pub(super) async fn commit_unacknowledged(self) -> Result<(), StoreError> {
        let (done, warned) = notices::watched(self.inner.commit()).await;
        done?;
        if warned { Err(StoreError::Unconfirmed) } else { Ok(()) }
    }

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

impl<'c> Executor<'c> for &'c mut Transaction {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Output, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.pooling {
            PoolerMode::Session => self.inner.fetch_many(query),
            PoolerMode::Transaction => self.inner.fetch_many(Unnamed(query)),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.pooling {
            PoolerMode::Session => self.inner.fetch_optional(query),
            PoolerMode::Transaction => self.inner.fetch_optional(Unnamed(query)),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.inner.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.inner.describe(sql)
    }
}
