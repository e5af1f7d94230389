//! Reads the audit log. Called by the action that lists it.

use futures_core::Stream;
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use tokio_stream::StreamExt as _;
use uuid::Uuid;

use super::columns::{Lenient, Time, unreadable};
use super::transaction::Transaction;
use super::{Store, StoreError, rows};
use crate::domain::event::{Actor, Attribution, EventKind, FieldChange, TokenEvent};
use crate::domain::size::{self, MAX_PAGE_BYTES};
use crate::domain::{OrganizationId, OwnerKind, UserId};
use crate::secret::TokenId;

/// The maximum delay between an event's time and its insertion. Far longer than any transaction, so that the
/// clock of the database may also be set back by this much.
const MAX_DELAY: Duration = Duration::HOUR;

/// Selects events; all filters that are given must match.
#[derive(Debug, Clone, Copy)]
pub struct EventFilter<'a> {
    /// Only events of this organization.
    pub organization_id: Option<&'a OrganizationId>,
    /// Only events of this token.
    pub token_id: Option<TokenId>,
    /// Only events of this user and this user's tokens.
    pub user_id: Option<&'a UserId>,
    /// Only events of this kind of owner.
    pub owner_kind: Option<OwnerKind>,
    /// Only events at this time or later.
    pub occurred_after: Option<OffsetDateTime>,
    /// Only events before this time.
    pub occurred_before: Option<OffsetDateTime>,
    /// Only events by this actor.
    pub actor: Option<&'a Actor>,
    /// Only events of these kinds; empty: of all.
    pub kinds: &'a [EventKind],
}

/// An event that matches the filter, or the last row of a scan that was cut off, or both.
struct EventRow {
    id: i64,
    event_time: Lenient<Time>,
    kind: Lenient<String>,
    token_id: Lenient<Option<Uuid>>,
    organization_id: Lenient<String>,
    user_id: Lenient<String>,
    owner_kind: Lenient<Option<String>>,
    actor: Lenient<String>,
    acting_user: Lenient<Option<String>>,
    attribution: Lenient<Option<String>>,
    trace_id: Lenient<Option<Vec<u8>>>,
    changes: Lenient<Json<Vec<FieldChange>>>,
    shown: bool,
    last: bool,
}

/// A page of events, newest first.
#[derive(Debug)]
pub struct Events {
    /// The events that fit into a page, and one more that does not.
    pub events: Vec<TokenEvent>,
    /// The number of the last event read, if more may follow: `limit` events were found, or 10,000 were
    /// read. Events that cannot be read are left out.
    pub read_to: Option<i64>,
}

/// The parameters of the statements. The event numbers lie between `behind` and `before`, both excluded.
struct Scan<'a> {
    before: i64,
    behind: i64,
    limit: i64,
    occurred_after: Option<OffsetDateTime>,
    occurred_before: Option<OffsetDateTime>,
    actor: Option<&'a str>,
    /// `None`: of all kinds.
    kinds: Option<Vec<String>>,
    owner_kind: Option<&'static str>,
}

/// Scans `$range` of one index, newest first, until a page is full or 10,000 events were read. `$order` is the
/// order of the index. Parameters from $9 on belong to `$range`.
///
/// Compared and ordered by the whole key of the index: by the number alone, the planner would scan the
/// whole log if it takes an owner for a frequent one.
/// The row number tells whether a scan was cut off or reached its end.
macro_rules! read_events {
    ($connection:expr, $scan:expr, $range:literal, $order:literal $(, $argument:expr)*) => {
        page($scan.limit, sqlx::query_as!(
            EventRow,
            r#"SELECT id, event_time AS "event_time!: _", kind AS "kind!: _", token_id AS "token_id!: _",
                   organization_id AS "organization_id!: _", user_id AS "user_id!: _",
                   owner_kind AS "owner_kind!: _", actor AS "actor!: _",
                   acting_user AS "acting_user!: _", attribution AS "attribution!: _", trace_id AS "trace_id!: _", changes AS "changes!: _",
                   shown AS "shown!", scanned = 10000 AS "last!"
               FROM (
                   SELECT *, row_number() OVER (ORDER BY "#
                + $order
                + r#") AS scanned
                   FROM token_events WHERE "#
                + $range + " ORDER BY " + $order
                + r#" LIMIT 10000
               ) AS log
               CROSS JOIN LATERAL (
                   SELECT ($4::timestamptz IS NULL OR event_time >= $4)
                       AND ($5::timestamptz IS NULL OR event_time < $5)
                       AND ($6::text IS NULL OR actor = $6)
                       AND ($7::text[] IS NULL OR kind = ANY($7))
                       AND ($8::text IS NULL OR coalesce(owner_kind, 'user') = $8) AS shown
               ) AS filter
               WHERE shown OR scanned = 10000
               ORDER BY "#
                + $order + " LIMIT $2",
            $scan.before,
            $scan.limit,
            $scan.behind,
            $scan.occurred_after,
            $scan.occurred_before,
            $scan.actor,
            $scan.kinds.as_deref(),
            $scan.owner_kind
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
        self.within(async {
            let mut transaction = self.begin().await?;
            transaction.scan_in_order().await?;
            let scan = Scan::new(&mut transaction, filter, before, limit).await?;
            read(&mut transaction, filter, &scan).await
        })
        .await
    }
}

impl<'a> Scan<'a> {
    /// Finds the range of numbers that contains all events of these times. Numbers grow with time, except for
    /// events that waited: these follow any event that is older by the maximum delay, and precede any that is
    /// newer by it.
    async fn new(
        transaction: &mut Transaction,
        filter: EventFilter<'a>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Self, StoreError> {
        let mut scan = Self {
            before: before.unwrap_or(i64::MAX),
            behind: 0,
            limit: limit.into(),
            occurred_after: filter.occurred_after,
            occurred_before: filter.occurred_before,
            actor: filter.actor.map(Actor::as_str),
            kinds: Some(filter.kinds.iter().map(|kind| kind.word().to_owned()).collect())
                .filter(|kinds: &Vec<_>| !kinds.is_empty()),
            owner_kind: filter.owner_kind.map(OwnerKind::word),
        };
        if let (None, None) = (filter.occurred_after, filter.occurred_before) {
            return Ok(scan);
        }
        let found = sqlx::query!(
            r#"SELECT (SELECT id FROM token_events WHERE event_time < $1 ORDER BY event_time DESC, id DESC LIMIT 1)
                   AS behind,
                   (SELECT id FROM token_events WHERE event_time >= $2 ORDER BY event_time, id LIMIT 1) AS before"#,
            filter.occurred_after.map(|time| time.saturating_sub(MAX_DELAY)),
            filter.occurred_before.map(|time| time.saturating_add(MAX_DELAY))
        )
        .fetch_one(transaction)
        .await?;
        scan.behind = found.behind.unwrap_or(scan.behind);
        scan.before = found.before.map_or(scan.before, |before| before.min(scan.before));
        Ok(scan)
    }
}

async fn read(
    connection: &mut Transaction,
    filter: EventFilter<'_>,
    scan: &Scan<'_>,
) -> Result<Events, StoreError> {
    let organization = filter.organization_id.map(OrganizationId::as_str);
    let user = filter.user_id.map(UserId::as_str);
    match (filter.token_id, organization, user, scan.actor) {
        (Some(id), organization, user, _) => read_events!(
            connection,
            scan,
            "(token_id, id) < ($9, $1) AND (token_id, id) > ($9, $3)
                 AND ($10::text IS NULL OR organization_id = $10) AND ($11::text IS NULL OR user_id = $11)",
            "token_id DESC, id DESC",
            rows::uuid(id),
            organization,
            user
        ),
        (None, Some(organization), Some(user), _) => read_events!(
            connection,
            scan,
            "(organization_id, user_id, id) < ($9, $10, $1) AND (organization_id, user_id, id) > ($9, $10, $3)",
            "organization_id DESC, user_id DESC, id DESC",
            organization,
            user
        ),
        (None, Some(organization), None, _) => read_events!(
            connection,
            scan,
            "(organization_id, id) < ($9, $1) AND (organization_id, id) > ($9, $3)",
            "organization_id DESC, id DESC",
            organization
        ),
        (None, None, Some(user), _) => read_events!(
            connection,
            scan,
            "(user_id, id) < ($9, $1) AND (user_id, id) > ($9, $3)",
            "user_id DESC, id DESC",
            user
        ),
        (None, None, None, Some(_)) => read_events!(
            connection,
            scan,
            r#"(actor COLLATE "C", id) < ($6, $1) AND (actor COLLATE "C", id) > ($6, $3)"#,
            r#"actor COLLATE "C" DESC, id DESC"#
        ),
        (None, None, None, None) => read_events!(connection, scan, "id < $1 AND id > $3", "id DESC"),
    }
}

async fn page(
    limit: i64,
    mut rows: impl Stream<Item = Result<EventRow, sqlx::Error>> + Unpin,
) -> Result<Events, StoreError> {
    let mut page = Events { events: Vec::new(), read_to: None };
    let (mut bytes, mut shown) = (0, 0);
    while bytes <= MAX_PAGE_BYTES {
        let Some(row) = rows.try_next().await? else { break };
        let id = row.id;
        shown += i64::from(row.shown);
        if row.last || shown == limit {
            page.read_to = Some(id);
        }
        if !row.shown {
            continue;
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
    // Builds that did not store it knew only persons.
    let owner_kind = row.owner_kind.read("owner_kind")?;
    let owner_kind = owner_kind.map_or(Some(OwnerKind::User), |word| OwnerKind::from_word(&word));
    let trace_id = row.trace_id.read("trace_id")?.map(TryInto::try_into).transpose();
    // Builds that did not store it knew only claims.
    let attribution = row.attribution.read("attribution")?;
    let attribution = attribution.map_or(Some(Attribution::Claimed), |word| Attribution::from_word(&word));
    let attribution = attribution.ok_or("attribution")?;
    let kind = EventKind::from_word(&row.kind.read("kind")?).ok_or("kind")?;
    let token_id = row.token_id.read("token_id")?.map(rows::token_id);
    if token_id.is_none() != kind.is_of_user() {
        return Err("token_id");
    }
    Ok(TokenEvent {
        id: row.id,
        event_time: row.event_time.moment("event_time")?,
        kind,
        token_id,
        organization_id: OrganizationId::parse(&organization_id).map_err(|_| "organization_id")?,
        user_id: UserId::parse(&user_id).map_err(|_| "user_id")?,
        owner_kind: owner_kind.ok_or("owner_kind")?,
        actor: row.actor.read("actor")?,
        acting_user: row.acting_user.read("acting_user")?.zip(Some(attribution)),
        trace_id: trace_id.map_err(|_| "trace_id")?,
        changes: row.changes.read("changes")?.0,
    })
}
