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

use super::STORE_DEADLINE;
use super::clock::Clock;
use super::connect_settings::{ConnectSettings, PoolerMode};

/// A pool of connections, opened when needed.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) connections: PgPool,
    pub(super) pooling: PoolerMode,
    /// The accepted state of the clock of their database.
    pub(super) clock: Clock,
}

/// A dedicated connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: PgConnection,
    pooling: PoolerMode,
}

/// An executor for one statement outside a transaction.
#[derive(Debug)]
pub(super) enum StatementExecutor<'c> {
    /// Unchanged, on any connection of a pool.
    Pool(&'c PgPool),
    /// In its own transaction, on any connection of a pool.
    SharedPool(&'c PgPool),
    /// Unchanged, on this connection.
    Connection(&'c mut PgConnection),
    /// In its own transaction, on this connection.
    SharedConnection(&'c mut PgConnection),
}

/// The result of a statement, or one of its rows.
pub(super) type Output = Either<PgQueryResult, PgRow>;

impl Pool {
    pub(super) fn single(&self) -> StatementExecutor<'_> {
        match self.pooling {
            PoolerMode::Session => StatementExecutor::Pool(&self.connections),
            PoolerMode::Transaction => StatementExecutor::SharedPool(&self.connections),
        }
    }
}

impl Session {
    pub(super) async fn open(settings: &ConnectSettings) -> Result<Self, Error> {
        let mut connection = settings.connect().await?;
        if settings.pooling == PoolerMode::Session {
            super::prepare(&mut connection).await?;
        }
        Ok(Self { connection, pooling: settings.pooling })
    }

    /// Makes Postgres plan each statement once, for access by keys. By default it plans a statement
    /// with a short list of keys again each time, which takes several times as long as executing it.
    pub(super) async fn plan_once(&mut self) -> Result<(), Error> {
        if self.pooling == PoolerMode::Session {
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

    pub(super) fn single(&mut self) -> StatementExecutor<'_> {
        match self.pooling {
            PoolerMode::Session => StatementExecutor::Connection(&mut self.connection),
            PoolerMode::Transaction => StatementExecutor::SharedConnection(&mut self.connection),
        }
    }

    pub(super) async fn close(self) -> Result<(), Error> {
        self.connection.close().await
    }
}

impl StatementExecutor<'_> {
    /// Runs the statement as a whole transaction.
    async fn run_in_transaction<'q, E>(self, query: E) -> Result<Vec<Output>, Error>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let begin = begin_statement(PoolerMode::Transaction, STORE_DEADLINE);
        let mut transaction = match self {
            Self::Pool(pool) | Self::SharedPool(pool) => pool.begin_with(begin).await?,
            Self::Connection(connection) | Self::SharedConnection(connection) => {
                connection.begin_with(begin).await?
            }
        };
        let outputs = transaction.fetch_many(Unnamed(query)).collect::<Result<Vec<_>, _>>().await?;
        transaction.commit().await?;
        Ok(outputs)
    }
}

/// Begins a transaction in which no statement takes longer than `timeout`; zero is no limit. Settings
/// that a direct connection gets once for its session are set here for a pooler's.
pub(super) fn begin_statement(pooling: PoolerMode, timeout: Duration) -> AssertSqlSafe<String> {
    let mut begin = format!("BEGIN; SET LOCAL statement_timeout = {}", timeout.as_millis());
    if pooling == PoolerMode::Transaction {
        begin.push_str(
            "; SELECT set_config('synchronous_commit', 'on', true)
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
        );
    }
    AssertSqlSafe(begin)
}

/// A statement that leaves nothing in its session.
pub(super) struct Unnamed<E>(pub(super) E);

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
enum Outputs<'e> {
    Awaited(BoxFuture<'e, Result<Vec<Output>, Error>>),
    Given(vec::IntoIter<Output>),
}

impl Stream for Outputs<'_> {
    type Item = Result<Output, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Self::Awaited(outputs) = &mut *self {
            let (outputs, failed) = match std::task::ready!(outputs.as_mut().poll(context)) {
                Ok(outputs) => (outputs, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            *self = Self::Given(outputs.into_iter());
            if let Some(error) = failed {
                return Poll::Ready(Some(Err(error)));
            }
        }
        let Self::Given(outputs) = &mut *self else { return Poll::Ready(None) };
        Poll::Ready(outputs.next().map(Ok))
    }
}

impl<'c> Executor<'c> for StatementExecutor<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Output, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self {
            Self::Pool(pool) => pool.fetch_many(query),
            Self::Connection(connection) => connection.fetch_many(query),
            shared => Box::pin(Outputs::Awaited(Box::pin(shared.run_in_transaction(query)))),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self {
            Self::Pool(pool) => pool.fetch_optional(query),
            Self::Connection(connection) => connection.fetch_optional(query),
            shared => Box::pin(async {
                let outputs = shared.run_in_transaction(query).await?;
                Ok(outputs.into_iter().find_map(Either::right))
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
            Self::Pool(pool) | Self::SharedPool(pool) => pool.prepare_with(sql, parameters),
            Self::Connection(connection) | Self::SharedConnection(connection) => {
                connection.prepare_with(sql, parameters)
            }
        }
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        match self {
            Self::Pool(pool) | Self::SharedPool(pool) => pool.describe(sql),
            Self::Connection(connection) | Self::SharedConnection(connection) => connection.describe(sql),
        }
    }
}
