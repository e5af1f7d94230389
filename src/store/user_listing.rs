//! Pages of users: who has tokens, how many, and who is disabled. Called by the list action. Steps from one user to the
//! next in the order of an index, so that the last page costs what the first one does, and counts the tokens of each.

use time::OffsetDateTime;

use super::columns::{Time, unreadable};
use super::locks::clock;
use super::{Store, StoreError};
use crate::domain::users::{Disabling, User, UserListing, UserPosition};
use crate::domain::{OrganizationId, OwnerKind, UserId};

/// How many tokens one statement counts before it ends; a user's tokens are counted to the end.
const COUNTED: i64 = 10_000;

/// The result of one scan.
#[derive(Debug)]
pub struct UserPage {
    /// The users.
    pub users: Vec<User>,
    /// Where the scan stopped, at the page's limit or its own; `None`: it reached the end.
    pub broken_off: Option<UserPosition>,
}

/// A user, or the last one of a scan that the filters leave out.
struct UserRow {
    organization_id: String,
    user_id: String,
    owner_kind: String,
    shown: bool,
    stopped: bool,
    tokens: i64,
    active: i64,
    last_use_time: Option<Time>,
    disable_time: Option<Time>,
    disabled_by: Option<String>,
    reason: Option<String>,
}

impl Store {
    /// Lists at most `limit` users after a position, or from the start.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn list_users(
        &self,
        listing: &UserListing,
        position: Option<UserPosition>,
        limit: u32,
    ) -> Result<UserPage, StoreError> {
        self.within(async {
            // A transaction for its statement timeout, and for the order of its scans.
            let mut transaction = self.begin().await?;
            transaction.scan_in_order().await?;
            let now = clock(&mut transaction).await?;
            let organization = listing.organization_id.as_ref().map(OrganizationId::as_str);
            let start = position.unwrap_or_else(|| UserPosition {
                organization_id: organization.unwrap_or_default().to_owned(),
                user_id: String::new(),
                kind: String::new(),
            });
            let rows = sqlx::query_as!(
                UserRow,
                r#"WITH RECURSIVE listed AS (
                       SELECT 0 AS step, 0 AS number, 0::bigint AS counted, false AS shown,
                           $1::text COLLATE "C" AS organization_id, $2::text COLLATE "C" AS user_id,
                           $3::text COLLATE "C" AS owner_kind,
                           0::bigint AS tokens, 0::bigint AS active, NULL::timestamptz AS last_use_time
                       UNION ALL
                       SELECT step + 1, number + wanted.shown::integer,
                           counted + greatest(of_user.tokens, 1), wanted.shown,
                           found.organization_id, found.user_id, found.owner_kind,
                           of_user.tokens, of_user.active, of_user.last_use_time
                       FROM listed
                           CROSS JOIN LATERAL (
                               SELECT * FROM (
                                   (SELECT t.organization_id, t.user_id, t.owner_kind FROM tokens t
                                    WHERE NOT $6 AND (t.organization_id, t.user_id, t.owner_kind)
                                        > (listed.organization_id, listed.user_id, listed.owner_kind)
                                    ORDER BY t.organization_id, t.user_id, t.owner_kind LIMIT 1)
                                   UNION ALL
                                   (SELECT d.organization_id, d.user_id, d.owner_kind FROM disabled_users d
                                    WHERE (d.organization_id, d.user_id, d.owner_kind)
                                        > (listed.organization_id, listed.user_id, listed.owner_kind)
                                    ORDER BY d.organization_id, d.user_id, d.owner_kind LIMIT 1)
                               ) AS next ORDER BY organization_id, user_id, owner_kind LIMIT 1
                           ) AS found
                           CROSS JOIN LATERAL (SELECT $5::text IS NULL OR found.owner_kind = $5 AS shown) AS wanted
                           CROSS JOIN LATERAL (
                               SELECT count(*) AS tokens,
                                   count(*) FILTER (WHERE t.revoke_time IS NULL AND t.disable_time IS NULL
                                       AND t.user_disable_time IS NULL
                                       AND (t.expire_time IS NULL OR t.expire_time > $8)) AS active,
                                   max((SELECT u.last_use_time FROM token_uses u WHERE u.token_id = t.id))
                                       AS last_use_time
                               FROM tokens t
                               WHERE wanted.shown AND t.organization_id = found.organization_id
                                   AND t.user_id = found.user_id AND t.owner_kind = found.owner_kind
                           ) AS of_user
                       WHERE number < $7 AND counted < $9
                           AND ($4::text IS NULL OR found.organization_id = $4))
                   SELECT l.organization_id AS "organization_id!", l.user_id AS "user_id!",
                       l.owner_kind AS "owner_kind!", l.shown AS "shown!", l.number >= $7 OR l.counted >= $9 AS "stopped!",
                       l.tokens AS "tokens!", l.active AS "active!", l.last_use_time AS "last_use_time: Time",
                       d.disable_time AS "disable_time?: Time", d.disabled_by AS "disabled_by?", d.reason AS "reason?"
                   FROM listed l
                       LEFT JOIN disabled_users d ON d.organization_id = l.organization_id
                           AND d.user_id = l.user_id AND d.owner_kind = l.owner_kind
                   WHERE l.step > 0 AND (l.shown OR l.number >= $7 OR l.counted >= $9)
                   ORDER BY l.step"#,
                start.organization_id,
                start.user_id,
                start.kind,
                organization,
                listing.kind.map(OwnerKind::word),
                listing.only_disabled,
                i32::try_from(limit).unwrap_or(i32::MAX),
                now,
                COUNTED
            )
            .fetch_all(&mut transaction)
            .await?;
            Ok(page(rows))
        })
        .await
    }
}

fn page(rows: Vec<UserRow>) -> UserPage {
    let broken_off = rows.last().filter(|row| row.stopped).map(|row| UserPosition {
        organization_id: row.organization_id.clone(),
        user_id: row.user_id.clone(),
        kind: row.owner_kind.clone(),
    });
    // Those that cannot be read are left out.
    let users = rows.into_iter().filter(|row| row.shown).filter_map(|row| {
        let table = if row.tokens > 0 { "tokens" } else { "disabled_users" };
        let organization = row.organization_id.clone();
        let read = user(row);
        read.map_err(|column| unreadable(table, Some(organization), column)).ok()
    });
    UserPage { users: users.collect(), broken_off }
}

/// Converts a row; the error is the name of the column that cannot be read.
fn user(row: UserRow) -> Result<User, &'static str> {
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let disabling = row.disable_time.map(|time| Disabling {
        // As when it is judged: one that cannot be read disables all the same.
        disable_time: time.moment().unwrap_or(OffsetDateTime::UNIX_EPOCH),
        disabled_by: row.disabled_by.unwrap_or_default(),
        reason: row.reason.unwrap_or_default(),
    });
    Ok(User {
        organization_id: OrganizationId::parse(&row.organization_id).map_err(|_| "organization_id")?,
        user_id: UserId::parse(&row.user_id).map_err(|_| "user_id")?,
        kind: OwnerKind::from_word(&row.owner_kind).ok_or("owner_kind")?,
        active: count(row.active),
        tokens: count(row.tokens),
        last_use_time: row.last_use_time.and_then(Time::moment),
        disabling,
    })
}
