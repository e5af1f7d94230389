//! How old each running replica's answers can be, and so how long a revocation takes to hold everywhere. A
//! replica's row counts until its bound and a lease have passed since its last renewal; the feed lets the
//! cache answer only while the row has been renewed well within the lease.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

use super::line::{Epoch, Line, within};
use super::{Store, StoreError};

/// How long after its renewal a replica's row counts, beside its bound.
pub const LEASE: Duration = Duration::from_mins(1);

impl Line {
    /// Registers or renews a replica with the age that its answers may reach. Returns which life of which
    /// server it is registered with.
    ///
    /// # Errors
    /// [`StoreError`]: the replica must not answer from its cache.
    pub async fn renew_replica(
        &mut self,
        id: Uuid,
        bound: Duration,
        deadline: Duration,
    ) -> Result<Option<Epoch>, StoreError> {
        let bound = interval(bound);
        within(deadline, async {
            let row = sqlx::query!(
                "INSERT INTO replicas (id, bound, renew_time) VALUES ($1, $2, clock_timestamp())
                 ON CONFLICT (id) DO UPDATE SET bound = EXCLUDED.bound, renew_time = EXCLUDED.renew_time
                 RETURNING (SELECT epoch FROM server_epoch) AS epoch",
                id,
                bound
            )
            .fetch_one(self.0.single())
            .await?;
            Ok(row.epoch.map(Epoch::parse))
        })
        .await
    }
}

impl Store {
    /// Returns from when on everything committed so far holds on every replica: the database's time now,
    /// plus the longest bound in use.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn effective_time(&self) -> Result<OffsetDateTime, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"SELECT clock_timestamp() + coalesce(max(bound), interval '0') AS "time!"
                   FROM replicas WHERE renew_time + bound + $1 > clock_timestamp()"#,
                interval(LEASE)
            )
            .fetch_one(self.single()?)
            .await?;
            Ok(row.time)
        })
        .await
    }

    /// Deletes the rows of replicas that are gone.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_replicas(&self) -> Result<u64, StoreError> {
        self.within(async {
            let done = sqlx::query!(
                "DELETE FROM replicas WHERE renew_time + bound + $1 < clock_timestamp()",
                interval(LEASE)
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

pub(super) fn interval(duration: Duration) -> PgInterval {
    // Configured bounds are minutes at most; a microsecond more is on the safe side.
    let microseconds = i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
