//! Reads what watchers receive: the changes that the feed follows, with the details of each. Called by
//! the watch hub, on its own connection.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::changes::Snapshot;
use super::clock::Epoch;
use super::columns::{Time, unreadable, unreadable_token};
use super::connection::{Connection, within};
use super::rows::{self, TokenRow, token_query};
use crate::domain::event::EventKind;
use crate::domain::{OrganizationId, Token};
use crate::secret::TokenId;

/// How many changes one statement returns.
const CHANGES_PER_PAGE: i64 = 500;

/// What happened to a token, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// What its event says.
    Event(EventKind),
    /// It no longer exists.
    Deleted,
    /// A change without an event: an operator's own statement, or a new fast verifier.
    Other,
}

/// One change of one token.
#[derive(Debug, Clone)]
pub struct Change {
    /// The token.
    pub id: TokenId,
    /// Its organization; `None` for changes from before this was recorded.
    pub organization_id: Option<OrganizationId>,
    /// What happened.
    pub kind: ChangeKind,
    /// When it happened, by the database's clock.
    pub change_time: OffsetDateTime,
    /// The token now; `None`: it no longer exists, or cannot be read.
    pub token: Option<Token>,
}

/// A page of changes, read in one statement under one snapshot.
#[derive(Debug)]
pub struct WatchPage {
    /// What the statement saw.
    pub snapshot: Snapshot,
    /// The database's time before the snapshot was taken.
    pub database_time: OffsetDateTime,
    /// The epoch of the server that answered; `None` when the server has no mark yet.
    pub epoch: Option<Epoch>,
    /// Changes that the snapshot `since` could not see may have been purged, or not been recorded.
    pub purged: bool,
    /// The changes, each token's in the order in which they were committed.
    pub changes: Vec<Change>,
    /// The sequence number after which the next page starts; `None` after the last page.
    pub next: Option<i64>,
}

impl Connection {
    /// Reads a page of the changes that `since` could not see and `until` can (`None`: now), after a
    /// sequence number.
    ///
    /// # Errors
    /// [`StoreError`], also when no response came by `deadline`.
    pub async fn read_changes(
        &mut self,
        since: Option<&Snapshot>,
        until: Option<&Snapshot>,
        after: Option<i64>,
        deadline: Duration,
    ) -> Result<WatchPage, StoreError> {
        within(deadline, async {
            let rows = token_query!(
                query_as ChangeRow,
                r#"SELECT always.snapshot AS "snapshot!", always.now AS "now!: Time", always.epoch AS "epoch?",
                       always.purged AS "purged!", c.sequence AS "sequence?", c.token_id AS "token_id?",
                       c.organization_id AS change_organization, c.change_time AS "change_time?: Time",
                       (SELECT max(e.kind) FROM token_events e
                        WHERE e.token_id = c.token_id AND e.xid = c.xid) AS kind,"#,
                "NULL::timestamptz, NULL::jsonb, NULL::timestamptz",
                [r#"AS "token?: TokenRow"
                   FROM (SELECT pg_current_snapshot()::text AS snapshot, now() AS now,
                             (SELECT epoch FROM server_epoch) AS epoch,
                             -- As the feed's poll judges it: see changes.rs.
                             coalesce(
                                 (SELECT purged_below FROM change_horizon
                                  WHERE purged_below <= pg_snapshot_xmin(pg_current_snapshot()))
                                     > pg_snapshot_xmin($1::text::pg_snapshot)
                                 OR pg_snapshot_xmax($1::text::pg_snapshot)
                                     > pg_snapshot_xmax(pg_current_snapshot())
                                 OR EXISTS (SELECT FROM trigger_faults), false) AS purged) AS always
                       LEFT JOIN LATERAL (
                           SELECT * FROM (
                               SELECT * FROM token_changes
                               WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                                   AND xid < pg_snapshot_xmax(pg_current_snapshot())
                               UNION ALL
                               SELECT * FROM token_changes
                               WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
                           ) AS unseen
                           WHERE sequence > $3
                               AND ($2::text IS NULL OR pg_visible_in_snapshot(xid, $2::text::pg_snapshot))
                           ORDER BY sequence LIMIT $4
                       ) AS c ON true
                       LEFT JOIN tokens t ON t.id = c.token_id
                   ORDER BY c.sequence"#],
                since.map(Snapshot::as_str),
                until.map(Snapshot::as_str),
                after.unwrap_or(i64::MIN),
                CHANGES_PER_PAGE
            )
            .fetch_all(self.0.single())
            .await?;
            page(rows)
        })
        .await
    }
}

/// A change, or only the state of the database, where there is no change.
struct ChangeRow {
    snapshot: String,
    now: Time,
    epoch: Option<String>,
    purged: bool,
    sequence: Option<i64>,
    token_id: Option<Uuid>,
    change_organization: Option<String>,
    change_time: Option<Time>,
    kind: Option<String>,
    token: Option<TokenRow>,
}

fn page(rows: Vec<ChangeRow>) -> Result<WatchPage, StoreError> {
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == CHANGES_PER_PAGE);
    let mut page = WatchPage {
        snapshot: Snapshot::from_database(first.snapshot.clone()),
        database_time: first.now.clock()?,
        epoch: first.epoch.clone().map(Epoch::parse),
        purged: first.purged,
        changes: Vec::new(),
        next: rows.last().and_then(|row| row.sequence).filter(|_| full),
    };
    page.changes.extend(rows.into_iter().filter_map(|row| change(row, page.database_time)));
    Ok(page)
}

/// Makes a change from what is known. A token that cannot be read is reported by its id alone: a
/// watcher that caches it must learn that it has changed.
fn change(row: ChangeRow, database_time: OffsetDateTime) -> Option<Change> {
    let id = row.token_id?;
    let kind = match &row.token {
        None => ChangeKind::Deleted,
        Some(_) => {
            row.kind.as_deref().and_then(EventKind::from_word).map_or(ChangeKind::Other, ChangeKind::Event)
        }
    };
    let organization_id = row.change_organization.and_then(|text| {
        let parsed = OrganizationId::parse(&text).map_err(|_| "organization_id");
        parsed.map_err(|column| unreadable("token_changes", Some(rows::token_id(id)), column)).ok()
    });
    let token = row.token.map(rows::token);
    let token = token.and_then(|token| token.map_err(|column| unreadable_token(id, column)).ok());
    let change_time = row.change_time.and_then(Time::moment).unwrap_or(database_time);
    Some(Change { id: rows::token_id(id), organization_id, kind, change_time, token })
}
