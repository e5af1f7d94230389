//! Links that sign a person in to the console, once. Called by the action that makes them, where they are used, and
//! by the purge. Knows only the hashes of their codes.

use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::ClockReading;
use super::columns::{Time, unreadable};
use super::locks::clock;
use super::portals::PortalColumns;
use super::transaction::Transaction;
use super::{Purpose, Store, StoreError, rows};
use crate::clock::BootInstant;
use crate::domain::session::{LINK_LIFETIME, Link, MAX_LINKS};
use crate::secret::TokenId;

impl Transaction {
    /// Stores a new link of this token, made at `now`, and ends its oldest ones beyond the limit. Returns when it
    /// expires.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn add_link(
        &mut self,
        code_hash: &[u8; 32],
        token_id: TokenId,
        now: OffsetDateTime,
    ) -> Result<OffsetDateTime, StoreError> {
        let expire_time = now.saturating_add(LINK_LIFETIME);
        sqlx::query!(
            "WITH surplus AS (
                 SELECT code_hash FROM console_links WHERE token_id = $2 AND consume_time IS NULL
                     AND portal_user_id IS NULL
                 ORDER BY expire_time DESC OFFSET $4::bigint - 1
             ), ended AS (
                 DELETE FROM console_links USING surplus WHERE console_links.code_hash = surplus.code_hash
             )
             INSERT INTO console_links (code_hash, token_id, expire_time) VALUES ($1, $2, $3)",
            code_hash,
            rows::uuid(token_id),
            expire_time,
            MAX_LINKS
        )
        .execute(self)
        .await?;
        Ok(expire_time)
    }
}

impl Store {
    /// Finds a link, usable or not, with the time to judge it by. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn find_link(
        &self,
        code_hash: &[u8; 32],
    ) -> Result<Option<(Link, OffsetDateTime)>, StoreError> {
        let sent = BootInstant::now();
        self.within(async {
            let found = sqlx::query!(
                r#"SELECT token_id, expire_time AS "expire_time: Time", consume_time AS "consume_time: Time",
                       portal_organization_id, portal_user_id, portal_scopes,
                       portal_expire_time AS "portal_expire_time: Time", clock_timestamp() AS "now!: Time"
                   FROM console_links WHERE code_hash = $1"#,
                code_hash
            )
            .fetch_optional(self.on(Purpose::Reads).single()?)
            .await?;
            let Some(row) = found else { return Ok(None) };
            let now = self.clock.accepted(ClockReading { sent, time: row.now.clock()? });
            let link = Link {
                token_id: rows::token_id(row.token_id),
                expire_time: read(row.expire_time, row.token_id, "expire_time")?,
                consume_time: row
                    .consume_time
                    .map(|time| read(time, row.token_id, "consume_time"))
                    .transpose()?,
                portal: PortalColumns {
                    organization_id: row.portal_organization_id,
                    user_id: row.portal_user_id,
                    scopes: row.portal_scopes,
                    expire_time: row.portal_expire_time,
                }
                .read("console_links", row.token_id)?,
            };
            Ok(Some((link, now)))
        })
        .await
    }

    /// Uses a link that signs in as its token: the only statement that does. Returns whether it was there to be used; of several attempts at
    /// once, one succeeds.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store. It may have been used then.
    pub async fn consume_link(&self, code_hash: &[u8; 32]) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let now = clock(&mut transaction).await?;
            let done = sqlx::query!(
                "UPDATE console_links SET consume_time = $2
                 WHERE code_hash = $1 AND consume_time IS NULL AND expire_time > $2 AND portal_user_id IS NULL",
                code_hash,
                now
            )
            .execute(&mut transaction)
            .await?;
            transaction.commit().await?;
            Ok(done.rows_affected() == 1)
        })
        .await
    }

    /// Deletes links that expired an hour ago: until then their use is explained. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_links(&self) -> Result<u64, StoreError> {
        let Some(now) = self.time_to_delete_by() else { return Ok(0) };
        self.within(async {
            let done = sqlx::query!(
                "DELETE FROM console_links WHERE expire_time <= $1::timestamptz - interval '1 hour'",
                now
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

fn read(time: Time, token_id: Uuid, column: &'static str) -> Result<OffsetDateTime, StoreError> {
    time.moment().ok_or_else(|| unreadable("console_links", Some(token_id), column))
}
