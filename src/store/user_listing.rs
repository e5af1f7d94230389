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
            let rows = sqlx::query_file_as!(
                UserRow,
                "src/store/user_listing.sql",
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
