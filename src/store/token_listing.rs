//! Pages of tokens. Called by the list action. Every statement scans one index from the end of the last
//! page (a keyset), at most 10,000 rows of it, so that the last page costs what the first one does however
//! few tokens match the filters, and tokens created or revoked meanwhile neither hide nor repeat others.

use futures_core::Stream;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_stream::StreamExt as _;
use uuid::Uuid;

use super::columns::{FIRST_MOMENT, unreadable_token};
use super::locks::clock;
use super::rows::{self, TokenRow, token_query};
use super::{Store, StoreError};
use crate::domain::page::{Listing, NamePart, Order, Position};
use crate::domain::size::{self, MAX_PAGE_BYTES};
use crate::domain::{OrganizationId, OwnerKind, Token, TokenState, UserId};
use crate::runtime::ROWS_PER_TURN;

/// The position before every token, in the order of creation, newest first.
const BEFORE_NEWEST: (OffsetDateTime, Uuid) = (datetime!(9999-12-31 23:59:59.999_999 UTC), Uuid::max());

/// The position before every token, in the order of expiration.
const SOONEST: (OffsetDateTime, Uuid) = (FIRST_MOMENT, Uuid::nil());

/// The result of one scan of the index.
#[derive(Debug)]
pub struct Walk {
    /// The matching tokens, each with the time to judge it by.
    pub tokens: Vec<(Token, OffsetDateTime)>,
    /// Where the scan stopped, at its row limit or at the page's limit; `None`: it reached the end.
    pub broken_off: Option<Position>,
}

/// A row that matches the listing, or the last row of a scan that stopped at its row limit, or both.
struct WalkRow {
    token: TokenRow,
    shown: bool,
    last: bool,
}

/// A listing, as parameters of the statements.
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter")]
struct Filters<'a> {
    active: bool,
    expired: bool,
    revoked: bool,
    disabled: bool,
    created_after: OffsetDateTime,
    created_before: Option<OffsetDateTime>,
    /// The latest expiration; `None`: any, or none at all.
    expires_by: Option<OffsetDateTime>,
    unused_since: Option<OffsetDateTime>,
    refused_after: Option<OffsetDateTime>,
    never_used: bool,
    name_contains: Option<&'a str>,
    owner_kind: Option<&'static str>,
    limit: i64,
    /// The one time by which all rows are judged.
    now: OffsetDateTime,
}

/// Scans an index until a page is full: `$range` of it and the part with `$owner_key`, ordered by
/// `$order`, which `$key` produces. The parameters are those of the filters, the position, and, from
/// $17 on, `$owner`.
///
/// `$owner` filters what the index finds, in case that two owners have one key. Beside the key in one
/// condition, it would have Postgres expect fewer rows than there are, and sort them all.
///
/// Numbering the rows during the scan costs nothing and stops with it; the number of the last one
/// distinguishes a scan that stopped at its limit from one that reached the end.
macro_rules! walk {
    ($connection:expr, $listing:expr, $filters:expr, $position:expr, $owner_key:literal, $owner:literal,
        $range:literal, $key:literal, $order:literal $(, $argument:expr)*) => {
        Walk::read($listing, $filters, token_query!(
            query_as WalkRow,
            r#"SELECT coalesce(shown, false) AS "shown!", walked = 10000 AS "last!","#,
            "(SELECT u.last_use_time FROM token_uses u WHERE u.token_id = t.id),
             (SELECT r.refusal FROM token_refusals r WHERE r.token_id = t.id), NULL::timestamptz",
            [r#"AS "token!: _"
               FROM (
                   SELECT *, coalesce(expire_time, 'infinity') AS end_time, id_order(id) AS id_key,
                       row_number() OVER (ORDER BY "#
                $key
                r#") AS walked
                   FROM tokens WHERE "#
                $owner_key " AND " $range " ORDER BY " $key
                r#" LIMIT 10000
               ) AS t
               CROSS JOIN LATERAL (
                   SELECT CASE WHEN revoke_time IS NOT NULL THEN $5 WHEN expire_time <= $13 THEN $4
                           WHEN coalesce(disable_time, user_disable_time) IS NOT NULL THEN $12::bool ELSE $3::bool END
                       AND create_time >= $6 AND create_time < coalesce($7::timestamptz, 'infinity')
                       AND end_time <= coalesce($8::timestamptz, 'infinity')
                       AND ($9::text IS NULL OR position($9 IN lower(name COLLATE "C")) > 0)
                       AND ($10::timestamptz IS NULL OR coalesce((SELECT u.last_use_time FROM token_uses u
                           WHERE u.token_id = t.id), create_time) < $10)
                       AND ($14::text IS NULL OR owner_kind = $14)
                       AND ($15::timestamptz IS NULL OR (SELECT r.refusal_time FROM token_refusals r
                           WHERE r.token_id = t.id) >= $15)
                       AND ($16::bool = FALSE OR (SELECT u.token_id FROM token_uses u WHERE u.token_id = t.id) IS NULL)
                       AND "#
                $owner
                r#" AS shown
               ) AS filter
               WHERE shown OR walked = 10000
               ORDER BY "#
                $order " LIMIT $11"],
            $position.0,
            $position.1,
            $filters.active,
            $filters.expired,
            $filters.revoked,
            $filters.created_after,
            $filters.created_before,
            $filters.expires_by,
            $filters.name_contains,
            $filters.unused_since,
            $filters.limit,
            $filters.disabled,
            $filters.now,
            $filters.owner_kind,
            $filters.refused_after,
            $filters.never_used
            $(, $argument)*
        )
        .fetch($connection))
        .await?
    };
}

/// Newest first. The range has one upper bound, the position, and the lower bound of `created_after`.
macro_rules! walk_by_create_time {
    ($connection:expr, $listing:expr, $filters:expr, $position:expr, $owner_key:literal, $owner:literal
        $(, $argument:expr)*) => {
        walk!(
            $connection, $listing, $filters, $position, $owner_key, $owner,
            "(create_time, id_order(id)) < ($1, id_order($2)) AND create_time >= $6",
            "create_time DESC, id_order(id) DESC",
            "create_time DESC, id_key DESC"
            $(, $argument)*
        )
    };
}

/// Soonest to expire first. If only active tokens are wanted, the range begins now; if only expired
/// ones, it ends now. A position without a time is among the tokens that never expire.
macro_rules! walk_by_expire_time {
    ($connection:expr, $listing:expr, $filters:expr, $position:expr, $owner_key:literal, $owner:literal
        $(, $argument:expr)*) => {
        walk!(
            $connection, $listing, $filters, $position, $owner_key, $owner,
            "(coalesce(expire_time, 'infinity'), id_order(id)) > (
                 CASE WHEN $4 OR $5 THEN coalesce($1::timestamptz, 'infinity')
                     ELSE greatest(coalesce($1::timestamptz, 'infinity'), $13::timestamptz) END,
                 id_order(CASE WHEN $4 OR $5 OR coalesce($1::timestamptz, 'infinity') >= $13::timestamptz THEN $2::uuid
                     ELSE 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid END))
             AND coalesce(expire_time, 'infinity') <= CASE WHEN $3 OR $5 OR $12 THEN coalesce($8::timestamptz, 'infinity')
                 ELSE least(coalesce($8::timestamptz, 'infinity'), $13::timestamptz) END",
            "coalesce(expire_time, 'infinity'), id_order(id)",
            "end_time, id_key"
            $(, $argument)*
        )
    };
}

/// Scans the index of the owner that the listing names.
macro_rules! walk_of_owner {
    ($walk:ident, $connection:expr, $listing:expr, $filters:expr, $position:expr) => {
        match (
            $listing.organization_id.as_ref().map(OrganizationId::as_str),
            $listing.user_id.as_ref().map(UserId::as_str),
        ) {
            (Some(organization), Some(user)) => $walk!(
                $connection,
                $listing,
                $filters,
                $position,
                "owner_key(organization_id, user_id) = owner_key($17, $18)",
                "organization_id = $17 AND user_id = $18",
                organization,
                user
            ),
            (Some(organization), None) => $walk!(
                $connection,
                $listing,
                $filters,
                $position,
                "owner_key(organization_id, '') = owner_key($17, '')",
                "organization_id = $17",
                organization
            ),
            (None, Some(user)) => $walk!(
                $connection,
                $listing,
                $filters,
                $position,
                "owner_key('', user_id) = owner_key('', $17)",
                "user_id = $17",
                user
            ),
            (None, None) => $walk!($connection, $listing, $filters, $position, "true", "true"),
        }
    };
}

impl Store {
    /// Scans a listing from `position`, or from its start, until `limit` matching tokens are found or
    /// the scan reaches its row limit.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn list_tokens(
        &self,
        listing: &Listing,
        position: Option<Position>,
        limit: u32,
    ) -> Result<Walk, StoreError> {
        self.within(async {
            // A transaction for its statement timeout: no scan continues after its caller has given up.
            let mut transaction = self.begin().await?;
            let filters = Filters::new(listing, limit, clock(&mut transaction).await?);
            let filters = &filters;
            Ok(match listing.order {
                Order::CreateTimeDescending => {
                    let position = before(listing, position);
                    walk_of_owner!(walk_by_create_time, &mut transaction, listing, filters, position)
                }
                Order::ExpireTime => {
                    let position =
                        position.map_or((Some(SOONEST.0), SOONEST.1), |at| (at.time, rows::uuid(at.id)));
                    walk_of_owner!(walk_by_expire_time, &mut transaction, listing, filters, position)
                }
            })
        })
        .await
    }
}

/// Returns the position before which a scan in the order of creation continues.
fn before(listing: &Listing, position: Option<Position>) -> (OffsetDateTime, Uuid) {
    let position =
        position.map_or(BEFORE_NEWEST, |at| (at.time.unwrap_or(BEFORE_NEWEST.0), rows::uuid(at.id)));
    // One bound only: with two, Postgres may start at the wrong one and scan everything between them.
    position.min(listing.created_before.map_or(BEFORE_NEWEST, |before| (before, Uuid::nil())))
}

impl<'a> Filters<'a> {
    fn new(listing: &'a Listing, limit: u32, now: OffsetDateTime) -> Self {
        // No states given means all.
        let wanted = |state| listing.states.is_empty() || listing.states.contains(&state);
        Self {
            active: wanted(TokenState::Active),
            expired: wanted(TokenState::Expired),
            revoked: wanted(TokenState::Revoked),
            disabled: wanted(TokenState::Disabled),
            created_after: listing.created_after.unwrap_or(SOONEST.0),
            created_before: listing.created_before,
            // Postgres stores whole microseconds.
            expires_by: listing.expires_before.map(|end| end.saturating_sub(time::Duration::MICROSECOND)),
            unused_since: listing.unused_since,
            refused_after: listing.refused_after,
            never_used: listing.never_used,
            name_contains: listing.name_contains.as_ref().map(NamePart::folded),
            owner_kind: listing.owner_kind.map(OwnerKind::word),
            limit: i64::from(limit),
            now,
        }
    }
}

impl Walk {
    /// Reads the rows that fit into a page, and one more that does not: nothing beyond the response is
    /// kept. Rows that cannot be read are left out; if that leaves fewer than requested, the next scan
    /// continues after them.
    async fn read(
        listing: &Listing,
        filters: &Filters<'_>,
        mut rows: impl Stream<Item = Result<WalkRow, sqlx::Error>> + Unpin,
    ) -> Result<Self, StoreError> {
        let mut walk = Self { tokens: Vec::new(), broken_off: None };
        let (mut bytes, mut shown) = (0, 0);
        let mut turn = (1..=ROWS_PER_TURN).cycle();
        while bytes <= MAX_PAGE_BYTES {
            let Some(row) = rows.try_next().await? else { break };
            if turn.next() == Some(ROWS_PER_TURN) {
                tokio::task::yield_now().await;
            }
            shown += i64::from(row.shown);
            if row.last || shown == filters.limit {
                walk.broken_off = position(listing.order, &row.token);
            }
            if !row.shown {
                continue;
            }
            let id = row.token.id;
            match rows::token(row.token) {
                Ok(token) => {
                    bytes += size::of_token(&token);
                    walk.tokens.push((token, filters.now));
                }
                Err(column) => _ = unreadable_token(id, column),
            }
        }
        Ok(walk)
    }
}

/// Returns the position of a scan at this row; `None`: no later row can be read. An invalid time is
/// before or after all others, so that only other such rows are skipped.
fn position(order: Order, row: &TokenRow) -> Option<Position> {
    let id = rows::token_id(row.id);
    match order {
        Order::CreateTimeDescending => {
            row.create_time.0?.moment().map(|time| Position { time: Some(time), id })
        }
        Order::ExpireTime => Some(match row.expire_time.0.flatten() {
            None => Position { time: None, id },
            Some(end) => match end.moment() {
                Some(time) => Position { time: Some(time), id },
                None if end.is_early() => Position { time: Some(SOONEST.0), id: rows::token_id(SOONEST.1) },
                None if end.is_infinite() => Position { time: None, id },
                None => Position { time: None, id: rows::token_id(Uuid::nil()) },
            },
        }),
    }
}
