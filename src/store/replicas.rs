//! How old the responses of each running replica can be, and so how long a revocation takes to hold
//! everywhere. A row counts until its bound and a lease have passed since its last renewal; the feed
//! lets the cache answer only while the row was renewed well within the lease. The first write of a row
//! waits for a standby, renewals never do: so a promoted standby knows every replica whose cache
//! answers, and because it may have missed the last renewals, every row counts as renewed when a
//! server's epoch begins.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::{ClockReading, Epoch, TOLERANCE};
use super::columns::Time;
use super::connection::{Connection, within};
use super::{Store, StoreError};
use crate::clock::BootInstant;
use crate::telemetry::notices;

/// How long a replica's row counts after its renewal, in addition to its bound.
pub const LEASE: Duration = Duration::from_mins(1);

impl Connection {
    /// Registers a replica with the maximum age of its responses, so that a failover does not lose it.
    ///
    /// # Errors
    /// [`StoreError`]: the replica must not answer from its cache.
    pub async fn register_replica(
        &mut self,
        id: Uuid,
        bound: Duration,
        deadline: Duration,
    ) -> Result<(), StoreError> {
        let bound = interval(bound);
        within(deadline, async {
            let registered = sqlx::query!(
                "INSERT INTO replicas (id, bound, renew_time) VALUES ($1, $2, clock_timestamp())
                 ON CONFLICT (id) DO UPDATE SET bound = EXCLUDED.bound, renew_time = EXCLUDED.renew_time",
                id,
                bound
            )
            .execute(self.0.single());
            let (registered, warned) = notices::watched(registered).await;
            registered?;
            // As in a transaction's commit: the wait for a standby was cancelled.
            if warned { Err(StoreError::Unconfirmed) } else { Ok(()) }
        })
        .await
    }

    /// Renews a registered replica's row, without waiting for a standby. Returns the epoch of the
    /// server that has the row; outer `None`: the row does not exist.
    ///
    /// # Errors
    /// [`StoreError`]: the replica must not answer from its cache.
    pub async fn renew_replica(
        &mut self,
        id: Uuid,
        bound: Duration,
        deadline: Duration,
    ) -> Result<Option<Option<Epoch>>, StoreError> {
        let bound = interval(bound);
        within(deadline, async {
            let row = sqlx::query!(
                "UPDATE replicas SET renew_time = clock_timestamp() WHERE id = $1 AND bound = $2
                 RETURNING (SELECT epoch FROM server_epoch) AS epoch,
                     set_config('synchronous_commit', 'local', true) AS commits",
                id,
                bound
            )
            .fetch_optional(self.0.single())
            .await?;
            Ok(row.map(|row| row.epoch.map(Epoch::parse)))
        })
        .await
    }
}

impl Store {
    /// Returns the time from which everything committed so far holds on every replica: the database's time now, as far as
    /// it is accepted, plus the longest bound in use; including those in use when the server's epoch began, as it may have
    /// missed renewals. If its clock is not at the expected time, or was set within the last minute, the times in the rows
    /// do not prove that a replica is gone: then every row counts.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn effective_time(&self) -> Result<OffsetDateTime, StoreError> {
        self.within(async {
            let sent = BootInstant::now();
            let row = sqlx::query!(
                r#"SELECT clock_timestamp() AS "now!: Time",
                       coalesce((extract(epoch FROM max(bound)) * 1000000)::bigint, 0) AS "longest!"
                   FROM replicas
                   WHERE greatest(renew_time, (SELECT coalesce(max(mark_time), clock_timestamp()) FROM server_mark))
                           + bound + $1 > clock_timestamp()
                       OR coalesce(clock_timestamp() NOT BETWEEN $2::timestamptz - $3::interval
                           AND $2::timestamptz + $3::interval, true)"#,
                interval(LEASE),
                self.clock.expected(sent),
                interval(TOLERANCE)
            )
            .fetch_one(self.single()?)
            .await?;
            let now = self.clock.accepted(ClockReading { sent, time: row.now.clock()? });
            Ok(now.saturating_add(time::Duration::microseconds(row.longest)))
        })
        .await
    }

    /// Deletes the rows of replicas that are gone; none while the clock is not at the expected time.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_replicas(&self) -> Result<u64, StoreError> {
        self.within(async {
            let done = sqlx::query!(
                "DELETE FROM replicas
                 WHERE greatest(renew_time, (SELECT coalesce(max(mark_time), clock_timestamp()) FROM server_mark))
                         + bound + $1 < clock_timestamp()
                     AND clock_timestamp() BETWEEN $2::timestamptz - $3::interval
                         AND $2::timestamptz + $3::interval",
                interval(LEASE),
                self.clock.expected(BootInstant::now()),
                interval(TOLERANCE)
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

pub(super) fn interval(duration: Duration) -> PgInterval {
    // Configured bounds are at most minutes; a microsecond more is on the safe side.
    let microseconds = i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
