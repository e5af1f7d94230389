//! Statements over connections that may be shared on their way to Postgres. A pooler in transaction mode
//! lends a session for one transaction: its settings and named statements would reach other clients. So there
//! every statement runs in a transaction, unnamed, with local settings. Used only by the store.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{AssertSqlSafe, Connection as _, Describe, Either, Error, Execute, Executor, Postgres, SqlStr};
use tokio_stream::StreamExt as _;

use super::clock::Clock;
use super::route::{Pooling, Route};
use super::{STORE_DEADLINE, StoreError};
use crate::telemetry::notices;

/// A transaction; rolled back unless it is committed.
#[derive(Debug)]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    pooling: Pooling,
    clock: Clock,
    /// Whether it has appended to the audit log, as every change does.
    changed: bool,
}

/// A pool of connections, opened when needed.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) connections: PgPool,
    pub(super) pooling: Pooling,
    /// The accepted state of the clock of their database.
    pub(super) clock: Clock,
}

/// A dedicated connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: PgConnection,
    pooling: Pooling,
}

/// An executor for one statement outside a transaction.
#[derive(Debug)]
pub(super) enum Single<'c> {
    /// Unchanged, on any connection of a pool.
    OfPool(&'c PgPool),
    /// In its own transaction, on any connection of a pool.
    OfSharedPool(&'c PgPool),
    /// Unchanged, on this connection.
    Of(&'c mut PgConnection),
    /// In its own transaction, on this connection.
    OfShared(&'c mut PgConnection),
}

type Step = Either<PgQueryResult, PgRow>;

impl Pool {
    pub(super) async fn begin(&self, timeout: Duration) -> Result<Transaction, Error> {
        let inner = self.connections.begin_with(opening(self.pooling, timeout)).await?;
        Ok(Transaction { inner, pooling: self.pooling, clock: self.clock.clone(), changed: false })
    }

    pub(super) fn single(&self) -> Single<'_> {
        match self.pooling {
            Pooling::Session => Single::OfPool(&self.connections),
            Pooling::Transaction => Single::OfSharedPool(&self.connections),
        }
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
}

impl Session {
    pub(super) async fn open(route: &Route) -> Result<Self, Error> {
        let mut connection = route.connect().await?;
        if route.pooling == Pooling::Session {
            super::prepare(&mut connection).await?;
        }
        Ok(Self { connection, pooling: route.pooling })
    }

    /// Makes Postgres plan each statement once, for access by keys. By default it plans a statement
    /// with a short list of keys again each time, which takes several times as long as executing it.
    pub(super) async fn plan_once(&mut self) -> Result<(), Error> {
        if self.pooling == Pooling::Session {
            // Without the last two, a plan made while the table was small would scan all of it when it
            // has grown.
            sqlx::query!(
                "SELECT set_config('plan_cache_mode', 'force_generic_plan', false) AS plans,
                     set_config('enable_seqscan', 'off', false) AS scans, set_config('jit', 'off', false) AS jit"
            )
            .fetch_one(&mut self.connection)
            .await?;
        }
        Ok(())
    }

    pub(super) fn single(&mut self) -> Single<'_> {
        match self.pooling {
            Pooling::Session => Single::Of(&mut self.connection),
            Pooling::Transaction => Single::OfShared(&mut self.connection),
        }
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        self.connection.close().await
    }
}

impl Single<'_> {
    /// Runs the statement as a whole transaction.
    async fn alone<'q, E>(self, query: E) -> Result<Vec<Step>, Error>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let opening = opening(Pooling::Transaction, STORE_DEADLINE);
        let mut transaction = match self {
            Self::OfPool(pool) | Self::OfSharedPool(pool) => pool.begin_with(opening).await?,
            Self::Of(connection) | Self::OfShared(connection) => connection.begin_with(opening).await?,
        };
        let steps = transaction.fetch_many(Unnamed(query)).collect::<Result<Vec<_>, _>>().await?;
        transaction.commit().await?;
        Ok(steps)
    }
}

/// Begins a transaction in which no statement takes longer than `timeout`; zero is no limit. Settings
/// that a direct connection gets once for its session are set here for a pooler's.
fn opening(pooling: Pooling, timeout: Duration) -> AssertSqlSafe<String> {
    let mut opening = format!("BEGIN; SET LOCAL statement_timeout = {}", timeout.as_millis());
    if pooling == Pooling::Transaction {
        opening.push_str(
            "; SELECT set_config('synchronous_commit', 'on', true)
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
        );
    }
    AssertSqlSafe(opening)
}

/// A statement that leaves nothing in its session.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}

/// The result of a statement, available once it has been committed.
enum Steps<'e> {
    Awaited(BoxFuture<'e, Result<Vec<Step>, Error>>),
    Given(vec::IntoIter<Step>),
}

impl Stream for Steps<'_> {
    type Item = Result<Step, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Self::Awaited(steps) = &mut *self {
            let (steps, failed) = match std::task::ready!(steps.as_mut().poll(context)) {
                Ok(steps) => (steps, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            *self = Self::Given(steps.into_iter());
            if let Some(error) = failed {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let Self::Given(steps) = &mut *self else { return Poll::Ready(None) };
        Poll::Ready(steps.next().map(Ok))
    }
}

impl<'c> Executor<'c> for &'c mut Transaction {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.pooling {
            Pooling::Session => self.inner.fetch_many(query),
            Pooling::Transaction => self.inner.fetch_many(Unnamed(query)),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.pooling {
            Pooling::Session => self.inner.fetch_optional(query),
            Pooling::Transaction => self.inner.fetch_optional(Unnamed(query)),
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

impl<'c> Executor<'c> for Single<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self {
            Self::OfPool(pool) => pool.fetch_many(query),
            Self::Of(connection) => connection.fetch_many(query),
            shared => Box::pin(Steps::Awaited(Box::pin(shared.alone(query)))),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self {
            Self::OfPool(pool) => pool.fetch_optional(query),
            Self::Of(connection) => connection.fetch_optional(query),
            shared => Box::pin(async {
                let steps = shared.alone(query).await?;
                Ok(steps.into_iter().find_map(Either::right))
            }),
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
        match self {
            Self::OfPool(pool) | Self::OfSharedPool(pool) => pool.prepare_with(sql, parameters),
            Self::Of(connection) | Self::OfShared(connection) => connection.prepare_with(sql, parameters),
        }
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        match self {
            Self::OfPool(pool) | Self::OfSharedPool(pool) => pool.describe(sql),
            Self::Of(connection) | Self::OfShared(connection) => connection.describe(sql),
        }
    }
}
