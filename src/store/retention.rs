//! Warns of tokens that expire soon, and deletes those that ended long ago. Small batches, so that no
//! lock is held for long; one replica at a time. Called by the jobs.

use std::time::Duration;

use super::locks::clock;
use super::replicas::interval;
use super::{Store, StoreError};

/// How many tokens one statement handles.
const TOKENS_PER_STATEMENT: i64 = 500;

/// The advisory lock of the purge. The value is arbitrary.
const PURGE_LOCK: i64 = 0x746f_6b65_6e64_0003;

impl Store {
    /// Writes an `expires_soon` event for tokens that will expire within `ahead` and have no such
    /// warning yet; returns how many. The event has the expiration, the time left until then, and which
    /// warning it is. No warning for tokens with a shorter lifetime than `ahead`, or that are revoked,
    /// disabled or have a successor.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn warn_of_expirations(&self, ahead: Duration) -> Result<u64, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let now = clock(&mut transaction).await?;
            let done = sqlx::query!(
                "WITH due AS (
                     SELECT id, organization_id, user_id, owner_kind, expire_time FROM tokens t
                     WHERE revoke_time IS NULL AND disable_time IS NULL AND user_disable_time IS NULL
                         AND superseded_by IS NULL
                         -- As tokens_expire_time_idx has it.
                         AND coalesce(expire_time, 'infinity') > $3
                         AND coalesce(expire_time, 'infinity') <= $3::timestamptz + $1::interval
                         -- Of others no event can be written, and one would keep back the whole batch.
                         AND organization_id <> '' AND user_id <> ''
                         AND create_time <= expire_time - $1::interval
                         AND NOT EXISTS (SELECT FROM token_warnings w WHERE w.token_id = t.id
                             AND w.expire_time = t.expire_time AND w.ahead = $1)
                     ORDER BY coalesce(expire_time, 'infinity') LIMIT $2
                 ), warned AS (
                     INSERT INTO token_warnings (token_id, expire_time, ahead)
                     SELECT id, expire_time, $1 FROM due ORDER BY id
                     ON CONFLICT DO NOTHING RETURNING token_id
                 ), changed AS (
                     INSERT INTO token_changes (token_id, organization_id)
                     SELECT id, organization_id FROM due JOIN warned ON token_id = id
                 )
                 INSERT INTO token_events (event_time, kind, token_id, organization_id, user_id, owner_kind, actor, changes)
                 SELECT $3, 'expires_soon', id, organization_id, user_id,
                     -- No other kind can be written.
                     CASE WHEN owner_kind IN ('user', 'service') THEN owner_kind END, 'tokend', jsonb_build_array(
                     jsonb_build_object('field', 'expire_time', 'new', rtrim(rtrim(
                         to_char(expire_time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'),
                     jsonb_build_object('field', 'time_left', 'new',
                         floor(extract(epoch FROM expire_time - $3))::bigint || 's'),
                     jsonb_build_object('field', 'warning', 'new', extract(epoch FROM $1::interval)::bigint || 's'))
                 FROM due JOIN warned ON token_id = id",
                interval(ahead),
                TOKENS_PER_STATEMENT,
                now
            )
            .execute(&mut transaction)
            .await?;
            transaction.commit_unacknowledged().await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// Deletes a batch of tokens that ended longer ago than `kept`, if no other replica is doing it and
    /// the time is known; returns how many.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_tokens(&self, kept: Duration) -> Result<u64, StoreError> {
        let Some(now) = self.time_to_delete_by() else { return Ok(0) };
        self.within(async {
            let mut transaction = self.begin().await?;
            if !transaction.try_lock(PURGE_LOCK).await? {
                return Ok(0);
            }
            let done = sqlx::query!(
                "WITH purged AS (
                     SELECT id, organization_id, user_id, owner_kind FROM tokens
                     WHERE (revoke_time < $3::timestamptz - $1::interval
                             OR coalesce(expire_time, 'infinity') < $3::timestamptz - $1::interval)
                         -- Of others no event can be written, and one would keep back the whole batch.
                         AND organization_id <> '' AND user_id <> ''
                     ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
                 ), logged AS (
                     INSERT INTO token_events (kind, token_id, organization_id, user_id, owner_kind, actor, changes)
                     SELECT 'purged', id, organization_id, user_id,
                         CASE WHEN owner_kind IN ('user', 'service') THEN owner_kind END, 'tokend', '[]'::jsonb
                     FROM purged
                 ), uses AS (
                     DELETE FROM token_uses USING purged WHERE token_id = id
                 ), refusals AS (
                     DELETE FROM token_refusals USING purged WHERE token_id = id
                 ), warnings AS (
                     DELETE FROM token_warnings USING purged WHERE token_id = id
                 )
                 DELETE FROM tokens USING purged WHERE tokens.id = purged.id",
                interval(kept),
                TOKENS_PER_STATEMENT,
                now
            )
            .execute(&mut transaction)
            .await?;
            transaction.commit_unacknowledged().await?;
            Ok(done.rows_affected())
        })
        .await
    }
}
