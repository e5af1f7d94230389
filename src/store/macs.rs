//! Replaces the fast verifiers (MACs), and counts the tokens of each key. Called by the engine and by
//! `tokend key status`. A new MAC is no audit event: it proves the same secret.

use std::time::Duration;

use super::{Store, StoreError, rows};
use crate::secret::{KeyId, Mac, TokenId};

/// A replacement of a token's MAC.
#[derive(Debug, Clone, Copy)]
pub struct MacChange {
    /// The token.
    pub id: TokenId,
    /// The MAC that must still be stored, or nothing is written.
    pub old: Mac,
    /// The MAC to write.
    pub new: Mac,
}

impl Store {
    /// Writes MACs in one statement, each only if the old one is still stored. Returns how many were
    /// written.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn replace_macs(&self, changes: &[MacChange]) -> Result<u64, StoreError> {
        let mut ids = Vec::with_capacity(changes.len());
        let mut olds = Vec::with_capacity(changes.len());
        let mut news = Vec::with_capacity(changes.len());
        let mut key_ids = Vec::with_capacity(changes.len());
        for change in changes {
            ids.push(rows::uuid(change.id));
            olds.push(change.old.tag.to_vec());
            news.push(change.new.tag.to_vec());
            key_ids.push(change.new.key_id.to_bytes().to_vec());
        }
        self.retrying(async || {
            let done = sqlx::query!(
                "UPDATE tokens SET mac = change.new, mac_key_id = change.key_id
                 FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bytea[])
                     AS change (id, old, new, key_id),
                     -- What a failover loses is written again.
                     set_config('synchronous_commit', 'local', true)
                 WHERE tokens.id = change.id AND tokens.mac = change.old",
                &ids,
                &olds,
                &news,
                &key_ids
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// Counts the tokens of each key that made their MAC, largest count first.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn count_tokens_by_key(&self) -> Result<Vec<(KeyId, i64)>, StoreError> {
        // No time limit: an operator's command that reads the whole table once.
        let mut transaction = self.pool()?.begin(Duration::ZERO).await?;
        let counted = sqlx::query!(
            r#"SELECT mac_key_id, count(*) AS "tokens!" FROM tokens
               GROUP BY mac_key_id ORDER BY count(*) DESC, mac_key_id"#
        )
        .fetch_all(&mut transaction)
        .await?;
        counted
            .into_iter()
            .map(|row| {
                let bytes = row.mac_key_id.as_slice().try_into();
                let key_id =
                    bytes.map_err(|_| StoreError::Corrupt { table: "tokens", column: "mac_key_id" })?;
                Ok((KeyId::from_bytes(key_id), row.tokens))
            })
            .collect()
    }
}
