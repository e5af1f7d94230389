//! Reads the audit log. Called by the action that lists it.

use futures_core::Stream;
use sqlx::types::Json;
use tokio_stream::StreamExt as _;
use uuid::Uuid;

use super::columns::{Lenient, Time, unreadable};
use super::{Store, StoreError, rows};
use crate::domain::event::{EventKind, FieldChange, TokenEvent};
use crate::domain::size::{self, MAX_PAGE_BYTES};
use crate::domain::{OrganizationId, UserId};
use crate::secret::TokenId;

/// Selects events; all filters that are given must match.
#[derive(Debug, Clone, Copy)]
pub struct EventFilter<'a> {
    /// Only events of this organization.
    pub organization_id: Option<&'a OrganizationId>,
    /// Only events of this token.
    pub token_id: Option<TokenId>,
    /// Only events of this user's tokens.
    pub user_id: Option<&'a UserId>,
}

struct EventRow {
    id: i64,
    event_time: Lenient<Time>,
    kind: Lenient<String>,
    token_id: Lenient<Uuid>,
    organization_id: Lenient<String>,
    user_id: Lenient<String>,
    actor: Lenient<String>,
    acting_user: Lenient<Option<String>>,
    trace_id: Lenient<Option<Vec<u8>>>,
    changes: Lenient<Json<Vec<FieldChange>>>,
}

/// A page of events, newest first.
#[derive(Debug)]
pub struct Events {
    /// The events that fit into a page, and one more that does not.
    pub events: Vec<TokenEvent>,
    /// The number of the last event read, if `limit` events were read: more may follow. Events that
    /// cannot be read are left out.
    pub read_to: Option<i64>,
}

/// Reads events by one index each, newest first, before a number, until a page is full.
///
/// Compared and ordered by the whole key of the index: by the number alone, the planner would scan the
/// whole log if it takes an owner for a frequent one.
macro_rules! read_events {
    ($connection:expr, $before:expr, $limit:expr, $where:literal, $order:literal $(, $argument:expr)*) => {
        page($limit, sqlx::query_as!(
            EventRow,
            r#"SELECT id, event_time AS "event_time!: _", kind AS "kind!: _", token_id AS "token_id!: _",
                   organization_id AS "organization_id!: _", user_id AS "user_id!: _", actor AS "actor!: _",
                   acting_user AS "acting_user!: _", trace_id AS "trace_id!: _", changes AS "changes!: _"
               FROM token_events WHERE id < $1 AND "# + $where + " ORDER BY " + $order + " LIMIT $2",
            $before,
            $limit
            $(, $argument)*
        )
        .fetch($connection))
        .await
    };
}

impl Store {
    /// Reads at most `limit` events, newest first, that were written before the event with the number
    /// `before`: those that fit into a page, and one more that does not.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn list_events(
        &self,
        filter: EventFilter<'_>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Events, StoreError> {
        let (before, limit) = (before.unwrap_or(i64::MAX), i64::from(limit));
        let organization = filter.organization_id.map(OrganizationId::as_str);
        let user = filter.user_id.map(UserId::as_str);
        self.within(async {
            let mut transaction = self.begin().await?;
            let connection = &mut transaction;
            match (filter.token_id, organization, user) {
                (Some(id), organization, user) => read_events!(
                    connection,
                    before,
                    limit,
                    "token_id = $3 AND ($4::text IS NULL OR organization_id = $4)
                         AND ($5::text IS NULL OR user_id = $5)",
                    "id DESC",
                    rows::uuid(id),
                    organization,
                    user
                ),
                (None, Some(organization), Some(user)) => read_events!(
                    connection,
                    before,
                    limit,
                    "organization_id = $3 AND user_id >= $4 AND (user_id, id) < ($4, $1)",
                    "user_id DESC, id DESC",
                    organization,
                    user
                ),
                (None, Some(organization), None) => {
                    read_events!(
                        connection,
                        before,
                        limit,
                        "organization_id >= $3 AND (organization_id, id) < ($3, $1)",
                        "organization_id DESC, id DESC",
                        organization
                    )
                }
                (None, None, Some(user)) => {
                    read_events!(
                        connection,
                        before,
                        limit,
                        "user_id >= $3 AND (user_id, id) < ($3, $1)",
                        "user_id DESC, id DESC",
                        user
                    )
                }
                (None, None, None) => read_events!(connection, before, limit, "true", "id DESC"),
            }
        })
        .await
    }
}

async fn page(
    limit: i64,
    mut rows: impl Stream<Item = Result<EventRow, sqlx::Error>> + Unpin,
) -> Result<Events, StoreError> {
    let mut page = Events { events: Vec::new(), read_to: None };
    let (mut bytes, mut read) = (0, 0);
    while bytes <= MAX_PAGE_BYTES {
        let Some(row) = rows.try_next().await? else { break };
        let id = row.id;
        read += 1;
        if read == limit {
            page.read_to = Some(id);
        }
        match event(row) {
            Ok(event) => {
                bytes += size::of_event(&event);
                page.events.push(event);
            }
            Err(column) => _ = unreadable("token_events", Some(id), column),
        }
    }
    Ok(page)
}

/// Converts a row; the error is the name of the column that cannot be read.
fn event(row: EventRow) -> Result<TokenEvent, &'static str> {
    let organization_id = row.organization_id.read("organization_id")?;
    let user_id = row.user_id.read("user_id")?;
    let trace_id = row.trace_id.read("trace_id")?.map(TryInto::try_into).transpose();
    Ok(TokenEvent {
        id: row.id,
        event_time: row.event_time.moment("event_time")?,
        kind: EventKind::from_word(&row.kind.read("kind")?).ok_or("kind")?,
        token_id: rows::token_id(row.token_id.read("token_id")?),
        organization_id: OrganizationId::parse(&organization_id).map_err(|_| "organization_id")?,
        user_id: UserId::parse(&user_id).map_err(|_| "user_id")?,
        actor: row.actor.read("actor")?,
        acting_user: row.acting_user.read("acting_user")?,
        trace_id: trace_id.map_err(|_| "trace_id")?,
        changes: row.changes.read("changes")?.0,
    })
}
