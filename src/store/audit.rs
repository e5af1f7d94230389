//! The audit log's reading side. Called by the action that lists it.

use futures_core::Stream;
use sqlx::types::Json;
use time::OffsetDateTime;
use tokio_stream::StreamExt as _;
use uuid::Uuid;

use super::{Store, StoreError, rows};
use crate::domain::event::{EventKind, FieldChange, TokenEvent};
use crate::domain::size::{self, MAX_PAGE_BYTES};
use crate::domain::{OrganizationId, UserId};
use crate::secret::TokenId;

/// Which events are asked for; all filters that are given apply together.
#[derive(Debug, Clone, Copy)]
pub struct EventFilter<'a> {
    /// Of this organization.
    pub organization_id: Option<&'a OrganizationId>,
    /// Of this token.
    pub token_id: Option<TokenId>,
    /// Of this user's tokens.
    pub user_id: Option<&'a UserId>,
}

struct EventRow {
    id: i64,
    event_time: OffsetDateTime,
    kind: String,
    token_id: Uuid,
    organization_id: String,
    user_id: String,
    actor: String,
    acting_user: Option<String>,
    trace_id: Option<Vec<u8>>,
    changes: Json<Vec<FieldChange>>,
}

/// Reads events by one index each, newest first, before a number, until a page is full.
macro_rules! read_events {
    ($connection:expr, $before:expr, $limit:expr, $where:literal $(, $argument:expr)*) => {
        page(sqlx::query_as!(
            EventRow,
            r#"SELECT id, event_time, kind, token_id, organization_id, user_id, actor, acting_user, trace_id,
                   changes AS "changes: Json<Vec<FieldChange>>"
               FROM token_events WHERE id < $1 AND "# + $where + " ORDER BY id DESC LIMIT $2",
            $before,
            $limit
            $(, $argument)*
        )
        .fetch($connection))
        .await
    };
}

impl Store {
    /// Reads at most `limit` events, newest first, that were written before the one with the number `before`: as
    /// far as they fit into a page, and one that does not.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn list_events(
        &self,
        filter: EventFilter<'_>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<TokenEvent>, StoreError> {
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
                    rows::uuid(id),
                    organization,
                    user
                ),
                (None, Some(organization), Some(user)) => read_events!(
                    connection,
                    before,
                    limit,
                    "organization_id = $3 AND user_id = $4",
                    organization,
                    user
                ),
                (None, Some(organization), None) => {
                    read_events!(connection, before, limit, "organization_id = $3", organization)
                }
                (None, None, user) => {
                    read_events!(connection, before, limit, "($3::text IS NULL OR user_id = $3)", user)
                }
            }
        })
        .await
    }
}

async fn page(
    mut rows: impl Stream<Item = Result<EventRow, sqlx::Error>> + Unpin,
) -> Result<Vec<TokenEvent>, StoreError> {
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes <= MAX_PAGE_BYTES {
        let Some(row) = rows.try_next().await? else { break };
        let event = TokenEvent::try_from(row)?;
        bytes += size::of_event(&event);
        events.push(event);
    }
    Ok(events)
}

impl TryFrom<EventRow> for TokenEvent {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::Corrupt { table: "token_events", column };
        let trace_id =
            row.trace_id.map(|bytes| bytes.try_into().map_err(|_| corrupt("trace_id"))).transpose()?;
        Ok(Self {
            id: row.id,
            event_time: row.event_time,
            kind: EventKind::from_word(&row.kind).ok_or(corrupt("kind"))?,
            token_id: rows::token_id(row.token_id),
            organization_id: OrganizationId::parse(&row.organization_id)
                .map_err(|_| corrupt("organization_id"))?,
            user_id: UserId::parse(&row.user_id).map_err(|_| corrupt("user_id"))?,
            actor: row.actor,
            acting_user: row.acting_user,
            trace_id,
            changes: row.changes.0,
        })
    }
}
