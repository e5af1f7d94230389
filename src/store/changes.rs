//! Follows the changes in `tokens`: the feed's poll, and the purge of changes that no feed needs any more.
//! A poll reads what its last snapshot could not see: transactions that began after it (`xid >=` its xmax)
//! and those that were running then (its xip). Unlike a sequence, this misses nothing that commits late.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::{Epoch, earlier};
use super::columns::Time;
use super::connection::{Connection, within};
use super::locks::clock;
use super::{Store, StoreError, rows};
use crate::secret::TokenId;

/// How many changes one statement returns.
const CHANGES_PER_PAGE: i64 = 10_000;

/// How many changes one statement deletes.
const PURGE_BATCH: i64 = 10_000;

/// The minimum age of purged changes, for feeds that lost their connection.
const RETENTION: &str = "1 hour";

/// A Postgres snapshot, in the database's text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(String);

impl Snapshot {
    /// Wraps a snapshot that the database returned.
    #[must_use]
    pub fn from_database(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the next page of the changes since a snapshot starts.
#[derive(Debug, Clone)]
pub struct ChangeCursor {
    xid: String,
    token_id: Uuid,
}

/// One page of changes, read in one statement under one snapshot.
#[derive(Debug)]
pub struct ChangePage {
    /// What the statement saw.
    pub snapshot: Snapshot,
    /// The database's time before the snapshot was taken.
    pub database_time: OffsetDateTime,
    /// The epoch of the server that answered; `None` when the server has no mark yet.
    pub epoch: Option<Epoch>,
    /// Changes that the snapshot `since` could not see may have been purged.
    pub purged: bool,
    /// Changes are not recorded, before the snapshot and after it, because triggers are off: the SQL
    /// that fixes this.
    pub unrecorded: Option<String>,
    /// The tokens that changed.
    pub ids: Vec<TokenId>,
    /// Where the next page starts; `None` after the last page.
    pub next: Option<ChangeCursor>,
}

impl Connection {
    /// Reads a page of the changes that `since` could not see; without `since`, only the current state
    /// of the database.
    ///
    /// A horizon ahead of every transaction was purged on another server, and came here in a dump. A
    /// `since` ahead of every transaction means that the server itself was restored to an earlier
    /// state.
    ///
    /// # Errors
    /// [`StoreError`], also when no response came by `deadline`.
    pub async fn read_changed_ids(
        &mut self,
        since: Option<&Snapshot>,
        from: Option<&ChangeCursor>,
        deadline: Duration,
    ) -> Result<ChangePage, StoreError> {
        let start = ChangeCursor { xid: "0".to_owned(), token_id: Uuid::nil() };
        let from = from.unwrap_or(&start);
        within(deadline, async {
            let row = sqlx::query!(
                r#"SELECT pg_current_snapshot()::text AS "snapshot!", now() AS "now!: Time",
                       (SELECT epoch FROM server_epoch) AS epoch,
                       coalesce(
                           (SELECT purged_below FROM change_horizon
                            WHERE purged_below <= pg_snapshot_xmin(pg_current_snapshot()))
                               > pg_snapshot_xmin($1::text::pg_snapshot)
                           OR pg_snapshot_xmax($1::text::pg_snapshot)
                               > pg_snapshot_xmax(pg_current_snapshot()), false) AS "purged!",
                       (SELECT string_agg(mend, '; ' ORDER BY name) FROM trigger_faults) AS unrecorded,
                       coalesce(page.ids, '{}') AS "ids!", coalesce(page.xids, '{}') AS "xids!"
                   FROM (
                       SELECT array_agg(token_id ORDER BY xid, token_id) AS ids,
                           array_agg(xid::text ORDER BY xid, token_id) AS xids
                       FROM (
                           (SELECT xid, token_id FROM token_changes
                            WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                                AND xid < pg_snapshot_xmax(pg_current_snapshot())
                                AND (xid, token_id) > ($2::text::xid8, $3)
                            ORDER BY xid, token_id LIMIT $4)
                           UNION ALL
                           (SELECT xid, token_id FROM token_changes
                            WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
                                AND (xid, token_id) > ($2::text::xid8, $3)
                            ORDER BY xid, token_id LIMIT $4)
                           ORDER BY xid, token_id LIMIT $4
                       ) AS changes
                   ) AS page"#,
                since.map(|snapshot| snapshot.0.as_str()),
                from.xid,
                from.token_id,
                CHANGES_PER_PAGE
            )
            .fetch_one(self.0.single())
            .await?;
            let full = i64::try_from(row.ids.len()).is_ok_and(|count| count == CHANGES_PER_PAGE);
            let last = row.xids.into_iter().next_back().zip(row.ids.last().copied());
            Ok(ChangePage {
                snapshot: Snapshot(row.snapshot),
                database_time: row.now.clock()?,
                epoch: row.epoch.map(Epoch::parse),
                purged: row.purged,
                unrecorded: row.unrecorded,
                next: last.filter(|_| full).map(|(xid, token_id)| ChangeCursor { xid, token_id }),
                ids: row.ids.into_iter().map(rows::token_id).collect(),
            })
        })
        .await
    }

    /// Marks a server that has no mark: it is new, or lost its mark in a crash or a promotion.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mark_server(&mut self, mark: Uuid, deadline: Duration) -> Result<(), StoreError> {
        within(deadline, async {
            sqlx::query!("INSERT INTO server_mark (mark) VALUES ($1) ON CONFLICT DO NOTHING", mark)
                .execute(self.0.single())
                .await?;
            Ok(())
        })
        .await
    }
}

impl Store {
    /// Deletes changes that are older than an hour; returns how many. A feed whose snapshot is older
    /// than the deleted changes clears its cache and starts again.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store; earlier deletions remain.
    pub async fn purge_changes(&self) -> Result<u64, StoreError> {
        self.raise_horizon().await?;
        let mut purged = 0;
        loop {
            let batch = self.purge_batch().await?;
            purged += batch;
            if batch < PURGE_BATCH.cast_unsigned() {
                return Ok(purged);
            }
        }
    }

    /// Records, before anything is deleted, which changes may be gone.
    async fn raise_horizon(&self) -> Result<(), StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let now = earlier(clock(&mut transaction).await?);
            // A horizon ahead of this very transaction came here in a dump: it does not apply to this
            // server's transactions, and would delete changes that no feed has seen.
            sqlx::query!(
                "UPDATE change_horizon SET
                     purged_below = CASE WHEN next_below > pg_current_xact_id() THEN '0' ELSE next_below END,
                     next_below = pg_snapshot_xmin(pg_current_snapshot()), next_time = $2
                 WHERE next_time < $2::timestamptz - $1::text::interval OR next_below > pg_current_xact_id()",
                RETENTION,
                now
            )
            .execute(&mut transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// Deletes the oldest changes below the horizon. The batch is small, so each one ends soon.
    async fn purge_batch(&self) -> Result<u64, StoreError> {
        self.within(async {
            let done = sqlx::query!(
                "DELETE FROM token_changes WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM token_changes
                     WHERE xid < (SELECT purged_below FROM change_horizon) ORDER BY xid, token_id LIMIT $1))",
                PURGE_BATCH
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}
