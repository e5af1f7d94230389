//! Records when tokens were last used. Called by the job that flushes the engine's notes.

use time::OffsetDateTime;

use super::{Store, StoreError, rows};
use crate::secret::TokenId;

impl Store {
    /// Records uses in one statement; a later use that is already stored stays.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn record_uses(&self, uses: &[(TokenId, OffsetDateTime)]) -> Result<(), StoreError> {
        let ids: Vec<_> = uses.iter().map(|(id, _)| rows::uuid(*id)).collect();
        let times: Vec<_> = uses.iter().map(|(_, time)| *time).collect();
        self.retrying(async || {
            // One row per id: notes kept from a failed flush may name it again. In the order of ids, so
            // that replicas that flush at once lock rows in the same order. No wait for a standby:
            // nothing is acknowledged.
            sqlx::query!(
                "INSERT INTO token_uses (token_id, last_use_time)
                 SELECT id, max(used) FROM unnest($1::uuid[], $2::timestamptz[]) AS use (id, used),
                     set_config('synchronous_commit', 'local', true)
                 GROUP BY id ORDER BY id
                 ON CONFLICT (token_id) DO UPDATE
                 SET last_use_time = greatest(token_uses.last_use_time, EXCLUDED.last_use_time)",
                &ids,
                &times
            )
            .execute(self.single()?)
            .await?;
            Ok(())
        })
        .await
    }
}
