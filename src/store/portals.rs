//! Portal sessions of the console, and the links that open them. Called by the actions that make and end them, where
//! they are opened, and where their callers are judged. Knows only hashes of codes and of keys.

use std::net::IpAddr;

use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::{Time, unreadable};
use super::locks::clock;
use super::transaction::Transaction;
use super::{Store, StoreError, rows};
use crate::domain::session::{LINK_LIFETIME, MAX_LINKS, MAX_SESSIONS_PER_TOKEN, PortalSession};
use crate::domain::{OrganizationId, PortalTerms, Scope, UserId};
use crate::secret::TokenId;

/// The columns of a portal session, in both tables.
pub(super) struct PortalColumns {
    pub(super) organization_id: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) expire_time: Option<Time>,
}

impl PortalColumns {
    /// Returns what they allow; `None`: it is no portal session. `id` names the row in the log.
    pub(super) fn read(self, table: &'static str, id: Uuid) -> Result<Option<PortalSession>, StoreError> {
        // One column alone has to be enough: what is no portal session has all rights of its token.
        let Self { organization_id, user_id, scopes, expire_time } = self;
        if organization_id.is_none() && user_id.is_none() && scopes.is_none() && expire_time.is_none() {
            return Ok(None);
        }
        let bad = |column| unreadable(table, Some(id), column);
        let scopes =
            scopes.and_then(|texts| rows::scopes(&texts).ok()).ok_or_else(|| bad("portal_scopes"))?;
        let organization_id = organization_id.and_then(|text| OrganizationId::parse(&text).ok());
        let user_id = user_id.and_then(|text| UserId::parse(&text).ok());
        let terms = PortalTerms {
            organization_id: organization_id.ok_or_else(|| bad("portal_organization_id"))?,
            user_id: user_id.ok_or_else(|| bad("portal_user_id"))?,
            scopes,
        };
        let expire_time = expire_time.and_then(Time::moment);
        Ok(Some(PortalSession { terms, expire_time: expire_time.ok_or_else(|| bad("portal_expire_time"))? }))
    }
}

impl Transaction {
    /// Stores a new link to a portal session, made at `now` by this token, and ends the oldest ones of the same user
    /// beyond the limit. Returns when the link expires: not after the session.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn add_portal_link(
        &mut self,
        code_hash: &[u8; 32],
        token_id: TokenId,
        PortalSession { terms, expire_time: end }: &PortalSession,
        now: OffsetDateTime,
    ) -> Result<OffsetDateTime, StoreError> {
        let expire_time = now.saturating_add(LINK_LIFETIME).min(*end);
        let scopes: Vec<String> = terms.scopes.iter().map(Scope::as_str).map(str::to_owned).collect();
        sqlx::query!(
            "WITH surplus AS (
                 SELECT code_hash FROM console_links
                 WHERE token_id = $2 AND consume_time IS NULL AND portal_organization_id = $5 AND portal_user_id = $6
                 ORDER BY expire_time DESC OFFSET $4::bigint - 1
             ), ended AS (
                 DELETE FROM console_links USING surplus WHERE console_links.code_hash = surplus.code_hash
             )
             INSERT INTO console_links (code_hash, token_id, expire_time, portal_organization_id, portal_user_id,
                 portal_scopes, portal_expire_time)
             VALUES ($1, $2, $3, $5, $6, $7, $8)",
            code_hash,
            rows::uuid(token_id),
            expire_time,
            MAX_LINKS,
            terms.organization_id.as_str(),
            terms.user_id.as_str(),
            &scopes,
            *end
        )
        .execute(self)
        .await?;
        Ok(expire_time)
    }

    /// Ends all portal sessions of a user, and the links that would open one. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn end_portals(
        &mut self,
        organization_id: &OrganizationId,
        user_id: &UserId,
    ) -> Result<u64, StoreError> {
        // The links first: one that is used at this moment has then opened the session that ends below.
        let links = sqlx::query!(
            "DELETE FROM console_links
             WHERE portal_organization_id = $1 AND portal_user_id = $2 AND consume_time IS NULL",
            organization_id.as_str(),
            user_id.as_str()
        )
        .execute(&mut *self)
        .await?;
        let sessions = sqlx::query!(
            "DELETE FROM console_sessions WHERE portal_organization_id = $1 AND portal_user_id = $2",
            organization_id.as_str(),
            user_id.as_str()
        )
        .execute(self)
        .await?;
        Ok(links.rows_affected().saturating_add(sessions.rows_affected()))
    }

    /// Keeps a portal session from being ended during the transaction, and returns when it is over; `None`: it has
    /// ended.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub(super) async fn lock_portal(&mut self, id: Uuid) -> Result<Option<OffsetDateTime>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT portal_expire_time AS "portal_expire_time: Time" FROM console_sessions
               WHERE id = $1 FOR KEY SHARE"#,
            id
        );
        let row = row.fetch_optional(self).await?;
        Ok(row.and_then(|row| row.portal_expire_time).and_then(Time::moment))
    }
}

impl Store {
    /// Uses a link to a portal session and opens it, in one transaction; the least recently used sessions of the same
    /// user beyond the limit end. Returns whether the link was there to be used; of several attempts at once, one
    /// succeeds.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store. It may have been used then.
    pub async fn open_portal(
        &self,
        code_hash: &[u8; 32],
        (key_hash, id): (&[u8; 32], Uuid),
        address: Option<IpAddr>,
    ) -> Result<bool, StoreError> {
        let address = address.map(|address| address.to_canonical().to_string());
        let address = address.as_deref();
        self.within(async {
            let mut transaction = self.begin().await?;
            let now = clock(&mut transaction).await?;
            let done = sqlx::query!(
                "WITH used AS (
                     UPDATE console_links SET consume_time = $4
                     WHERE code_hash = $1 AND consume_time IS NULL AND expire_time > $4 AND portal_user_id IS NOT NULL
                     RETURNING token_id, portal_organization_id, portal_user_id, portal_scopes, portal_expire_time
                 ), surplus AS (
                     SELECT key_hash FROM console_sessions JOIN used USING (portal_organization_id, portal_user_id)
                     ORDER BY last_use_time DESC OFFSET $6::bigint - 1
                 ), ended AS (
                     DELETE FROM console_sessions USING surplus WHERE console_sessions.key_hash = surplus.key_hash
                 )
                 INSERT INTO console_sessions (key_hash, id, token_id, open_time, last_use_time, proof_time, by_link,
                     address, portal_organization_id, portal_user_id, portal_scopes, portal_expire_time)
                 SELECT $2, $3, token_id, $4, $4, $4, true, $5, portal_organization_id, portal_user_id,
                     portal_scopes, portal_expire_time
                 FROM used",
                code_hash,
                key_hash,
                id,
                now,
                address,
                MAX_SESSIONS_PER_TOKEN
            )
            .execute(&mut transaction)
            .await?;
            transaction.commit().await?;
            Ok(done.rows_affected() == 1)
        })
        .await
    }
}
