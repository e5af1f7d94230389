//! Sessions of persons in the console. Called where sessions are authenticated, and by the purge. Knows neither
//! cookies nor keys of sessions, only the hashes by which their rows are found.

use std::net::IpAddr;

use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::ClockReading;
use super::columns::{Time, unreadable};
use super::locks::clock;
use super::portals::PortalColumns;
use super::{Purpose, Store, StoreError, rows};
use crate::clock::BootInstant;
use crate::domain::session::{MAX_SESSIONS_PER_TOKEN, Session};
use crate::secret::TokenId;

/// The columns of `console_sessions` that make a [`Session`].
pub(super) struct SessionRow {
    pub(super) id: Uuid,
    pub(super) token_id: Uuid,
    pub(super) open_time: Time,
    pub(super) last_use_time: Time,
    pub(super) proof_time: Time,
    pub(super) by_link: bool,
    pub(super) address: Option<String>,
    pub(super) portal_organization_id: Option<String>,
    pub(super) portal_user_id: Option<String>,
    pub(super) portal_scopes: Option<Vec<String>>,
    pub(super) portal_expire_time: Option<Time>,
}

/// Which sessions of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// This one.
    One(Uuid),
    /// Every one.
    All,
}

impl TryFrom<SessionRow> for Session {
    type Error = StoreError;

    fn try_from(row: SessionRow) -> Result<Self, StoreError> {
        let read = |time: Time, column| {
            time.moment().ok_or_else(|| unreadable("console_sessions", Some(row.id), column))
        };
        Ok(Self {
            id: row.id,
            token_id: rows::token_id(row.token_id),
            open_time: read(row.open_time, "open_time")?,
            last_use_time: read(row.last_use_time, "last_use_time")?,
            proof_time: read(row.proof_time, "proof_time")?,
            address: row.address,
            by_link: row.by_link,
            portal: PortalColumns {
                organization_id: row.portal_organization_id,
                user_id: row.portal_user_id,
                scopes: row.portal_scopes,
                expire_time: row.portal_expire_time,
            }
            .read("console_sessions", row.id)?,
        })
    }
}

impl Store {
    /// Stores a new session of this token, and ends its least recently used ones beyond the limit.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn open_session(
        &self,
        key_hash: &[u8; 32],
        id: Uuid,
        token_id: TokenId,
        (by_link, address): (bool, Option<IpAddr>),
    ) -> Result<(), StoreError> {
        let address = address.map(|address| address.to_canonical().to_string());
        let address = address.as_deref();
        self.retrying(async || {
            let mut transaction = self.begin().await?;
            let now = clock(&mut transaction).await?;
            sqlx::query!(
                "WITH surplus AS (
                     SELECT key_hash FROM console_sessions WHERE token_id = $3 AND portal_user_id IS NULL
                     ORDER BY last_use_time DESC OFFSET $5::bigint - 1
                 ), ended AS (
                     DELETE FROM console_sessions USING surplus WHERE console_sessions.key_hash = surplus.key_hash
                 )
                 INSERT INTO console_sessions
                     (key_hash, id, token_id, open_time, last_use_time, proof_time, by_link, address)
                 VALUES ($1, $2, $3, $4, $4, $4, $6, $7)",
                key_hash,
                id,
                rows::uuid(token_id),
                now,
                MAX_SESSIONS_PER_TOKEN,
                by_link,
                address
            )
            .execute(&mut transaction)
            .await?;
            transaction.commit_unacknowledged().await
        })
        .await
    }

    /// Finds a session, over or not, with the time to judge it by.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn find_session(
        &self,
        key_hash: &[u8; 32],
    ) -> Result<Option<(Session, OffsetDateTime)>, StoreError> {
        let sent = BootInstant::now();
        self.within(async {
            let found = sqlx::query!(
                r#"SELECT id, token_id, open_time AS "open_time: Time", last_use_time AS "last_use_time: Time",
                       proof_time AS "proof_time: Time", by_link, address, portal_organization_id, portal_user_id,
                       portal_scopes, portal_expire_time AS "portal_expire_time: Time",
                       clock_timestamp() AS "now!: Time"
                   FROM console_sessions WHERE key_hash = $1"#,
                key_hash
            )
            .fetch_optional(self.on(Purpose::Reads).single()?)
            .await?;
            let Some(row) = found else { return Ok(None) };
            let now = self.clock.accepted(ClockReading { sent, time: row.now.clock()? });
            let session = SessionRow {
                id: row.id,
                token_id: row.token_id,
                open_time: row.open_time,
                last_use_time: row.last_use_time,
                proof_time: row.proof_time,
                by_link: row.by_link,
                address: row.address,
                portal_organization_id: row.portal_organization_id,
                portal_user_id: row.portal_user_id,
                portal_scopes: row.portal_scopes,
                portal_expire_time: row.portal_expire_time,
            };
            Ok(Some((session.try_into()?, now)))
        })
        .await
    }

    /// Lists the sessions that stand for a token and are not over at `now`, the most recently used first.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn list_sessions(
        &self,
        token_id: TokenId,
        now: OffsetDateTime,
    ) -> Result<Vec<Session>, StoreError> {
        self.within(async {
            let found = sqlx::query_as!(
                SessionRow,
                r#"SELECT id, token_id, open_time AS "open_time: Time", last_use_time AS "last_use_time: Time",
                       proof_time AS "proof_time: Time", by_link, address, portal_organization_id, portal_user_id,
                       portal_scopes, portal_expire_time AS "portal_expire_time: Time"
                   FROM console_sessions WHERE token_id = $1 AND portal_user_id IS NULL ORDER BY last_use_time DESC, id LIMIT $2"#,
                rows::uuid(token_id),
                MAX_SESSIONS_PER_TOKEN
            )
            .fetch_all(self.on(Purpose::Reads).single()?)
            .await?;
            let mut sessions: Vec<Session> = found.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            sessions.retain(|session| !session.is_over(now));
            Ok(sessions)
        })
        .await
    }

    /// Ends one session that stands for a token, or all. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn end_sessions(&self, token_id: TokenId, which: Which) -> Result<u64, StoreError> {
        let one = match which {
            Which::One(id) => Some(id),
            Which::All => None,
        };
        self.within(async {
            let done = sqlx::query!(
                "DELETE FROM console_sessions
                 WHERE token_id = $1 AND id = coalesce($2, id) AND portal_user_id IS NULL",
                rows::uuid(token_id),
                one
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// Records a use of a session at `now`. No wait for a standby: nothing is acknowledged.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn use_session(&self, id: Uuid, now: OffsetDateTime) -> Result<(), StoreError> {
        self.within(async {
            sqlx::query!(
                "UPDATE console_sessions SET last_use_time = greatest(last_use_time, $2)
                 FROM (SELECT set_config('synchronous_commit', 'local', true)) AS unconfirmed WHERE id = $1",
                id,
                now
            )
            .execute(self.single()?)
            .await?;
            Ok(())
        })
        .await
    }

    /// Records that the secret was proven again at `now`.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn prove_session(&self, id: Uuid, now: OffsetDateTime) -> Result<(), StoreError> {
        self.within(async {
            sqlx::query!("UPDATE console_sessions SET proof_time = $2 WHERE id = $1", id, now)
                .execute(self.single()?)
                .await?;
            Ok(())
        })
        .await
    }

    /// Ends a session; nothing happens if there is none.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn end_session(&self, key_hash: &[u8; 32]) -> Result<(), StoreError> {
        self.within(async {
            sqlx::query!("DELETE FROM console_sessions WHERE key_hash = $1", key_hash)
                .execute(self.single()?)
                .await?;
            Ok(())
        })
        .await
    }

    /// Deletes sessions that are over. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_sessions(&self) -> Result<u64, StoreError> {
        let Some(now) = self.time_to_delete_by() else { return Ok(0) };
        self.within(async {
            let done = sqlx::query!(
                "DELETE FROM console_sessions WHERE last_use_time <= $1::timestamptz - interval '30 minutes'
                     OR open_time <= $1::timestamptz - interval '12 hours'",
                now
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}
