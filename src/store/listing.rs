//! Pages of tokens. Called by the list action. Every statement walks one index from where the last page
//! ended (a keyset), so that the last page costs what the first one does, and tokens created or revoked
//! meanwhile neither hide nor repeat others.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use super::rows::{self, TokenRow, select_tokens};
use super::{Store, StoreError};
use crate::domain::page::{Listing, Order, Position};
use crate::domain::{Token, TokenState};

/// Before every token, in the order of creation, newest first.
const NEWEST: (OffsetDateTime, Uuid) = (datetime!(9999-12-31 23:59:59.999_999 UTC), Uuid::max());

/// Before every token, in the order of expiration.
const SOONEST: (OffsetDateTime, Uuid) = (datetime!(0001-01-01 00:00 UTC), Uuid::nil());

impl Store {
    /// Reads at most `limit` tokens of a listing, those after `position`, or from its start, each with the
    /// database's time of reading.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn list_tokens(
        &self,
        listing: &Listing,
        position: Option<Position>,
        limit: u32,
    ) -> Result<Vec<(Token, OffsetDateTime)>, StoreError> {
        self.within(async {
            let rows = match listing.order {
                Order::CreateTimeDescending => self.by_create_time(listing, position, limit).await,
                Order::ExpireTime => self.by_expire_time(listing, position, limit).await,
            };
            rows?.into_iter().map(rows::with_read_time).collect()
        })
        .await
    }

    async fn by_create_time(
        &self,
        listing: &Listing,
        position: Option<Position>,
        limit: u32,
    ) -> Result<Vec<TokenRow>, StoreError> {
        let (time, id) = position.map_or(NEWEST, |at| (at.time.unwrap_or(NEWEST.0), rows::uuid(at.id)));
        let (active, expired, revoked) = wanted_states(listing);
        let (organization, user) = owner(listing);
        let limit = i64::from(limit);
        let pool = self.pool()?;
        let rows = match (organization, user) {
            (Some(organization), Some(user)) => select_tokens!(
                "WHERE organization_id = $7 AND user_id = $8 AND (create_time, id) < ($1, $2)
                 AND CASE WHEN revoke_time IS NOT NULL THEN $5 WHEN expire_time <= now() THEN $4 ELSE $3::bool END
                 ORDER BY create_time DESC, id DESC LIMIT $6",
                time, id, active, expired, revoked, limit, organization, user,
            )
            .fetch_all(pool)
            .await?,
            (Some(organization), None) => select_tokens!(
                "WHERE organization_id = $7 AND (create_time, id) < ($1, $2)
                 AND CASE WHEN revoke_time IS NOT NULL THEN $5 WHEN expire_time <= now() THEN $4 ELSE $3::bool END
                 ORDER BY create_time DESC, id DESC LIMIT $6",
                time, id, active, expired, revoked, limit, organization,
            )
            .fetch_all(pool)
            .await?,
            (None, user) => select_tokens!(
                "WHERE ($7::text IS NULL OR user_id = $7) AND (create_time, id) < ($1, $2)
                 AND CASE WHEN revoke_time IS NOT NULL THEN $5 WHEN expire_time <= now() THEN $4 ELSE $3::bool END
                 ORDER BY create_time DESC, id DESC LIMIT $6",
                time, id, active, expired, revoked, limit, user,
            )
            .fetch_all(pool)
            .await?,
        };
        Ok(rows)
    }

    async fn by_expire_time(
        &self,
        listing: &Listing,
        position: Option<Position>,
        limit: u32,
    ) -> Result<Vec<TokenRow>, StoreError> {
        // A position without a time is among those that never expire.
        let (time, id) = position.map_or((Some(SOONEST.0), SOONEST.1), |at| (at.time, rows::uuid(at.id)));
        let (active, expired, revoked) = wanted_states(listing);
        let (organization, user) = owner(listing);
        let limit = i64::from(limit);
        let pool = self.pool()?;
        let rows = match (organization, user) {
            (Some(organization), Some(user)) => select_tokens!(
                "WHERE organization_id = $7 AND user_id = $8
                 AND (coalesce(expire_time, 'infinity'), id) > (coalesce($1::timestamptz, 'infinity'), $2)
                 AND CASE WHEN revoke_time IS NOT NULL THEN $5 WHEN expire_time <= now() THEN $4 ELSE $3::bool END
                 ORDER BY coalesce(expire_time, 'infinity'), id LIMIT $6",
                time, id, active, expired, revoked, limit, organization, user,
            )
            .fetch_all(pool)
            .await?,
            (Some(organization), None) => select_tokens!(
                "WHERE organization_id = $7
                 AND (coalesce(expire_time, 'infinity'), id) > (coalesce($1::timestamptz, 'infinity'), $2)
                 AND CASE WHEN revoke_time IS NOT NULL THEN $5 WHEN expire_time <= now() THEN $4 ELSE $3::bool END
                 ORDER BY coalesce(expire_time, 'infinity'), id LIMIT $6",
                time, id, active, expired, revoked, limit, organization,
            )
            .fetch_all(pool)
            .await?,
            (None, user) => select_tokens!(
                "WHERE ($7::text IS NULL OR user_id = $7)
                 AND (coalesce(expire_time, 'infinity'), id) > (coalesce($1::timestamptz, 'infinity'), $2)
                 AND CASE WHEN revoke_time IS NOT NULL THEN $5 WHEN expire_time <= now() THEN $4 ELSE $3::bool END
                 ORDER BY coalesce(expire_time, 'infinity'), id LIMIT $6",
                time, id, active, expired, revoked, limit, user,
            )
            .fetch_all(pool)
            .await?,
        };
        Ok(rows)
    }
}

/// Tells whether active, expired and revoked tokens are wanted; no state named means all.
fn wanted_states(listing: &Listing) -> (bool, bool, bool) {
    let wanted = |state| listing.states.is_empty() || listing.states.contains(&state);
    (wanted(TokenState::Active), wanted(TokenState::Expired), wanted(TokenState::Revoked))
}

fn owner(listing: &Listing) -> (Option<&str>, Option<&str>) {
    (
        listing.organization_id.as_ref().map(super::super::domain::fields::OrganizationId::as_str),
        listing.user_id.as_ref().map(super::super::domain::fields::UserId::as_str),
    )
}
