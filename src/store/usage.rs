//! Reads how often tokens were verified. Called by the action of `GetUsage`. One statement reads days and the hours
//! that are not in their day yet, so that each verification is counted once while hours are added to days.

use uuid::Uuid;

use super::columns::Time;
use super::{Store, StoreError, Transaction, rows};
use crate::domain::OwnerKind;
use crate::domain::usage::{Step, TokenUsage, UsageAnswer, UsagePoint, UsageQuery, UsageScope, VerdictCount};

/// The most counts that one statement adds up: about a second of Postgres' time.
const MAX_COUNTS: i64 = 1_000_000;

struct PointRow {
    start: Time,
    verdict: i16,
    verifications: i64,
    counts: i64,
}

struct TopRow {
    token_id: Uuid,
    verdict: i16,
    verifications: i64,
    name: Option<String>,
    user_id: Option<String>,
    owner_kind: Option<String>,
    counts: i64,
}

/// Adds up what `$counts` selects, by step and verdict.
macro_rules! points {
    ($transaction:expr, $query:expr, $counts:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            PointRow,
            r#"SELECT date_trunc(CASE WHEN $3 THEN 'day' ELSE 'hour' END, time, 'UTC') AS "start!: Time",
                   verdict AS "verdict!", sum(verifications)::bigint AS "verifications!", count(*) AS "counts!"
               FROM ("# + $counts + r#" LIMIT $4::bigint + 1) AS count
               GROUP BY 1, 2 ORDER BY 1, 2"#,
            $query.range.start,
            $query.range.end,
            $query.step == Step::Day,
            MAX_COUNTS
            $(, $argument)*
        )
        .fetch_all($transaction)
        .await?
    };
}

/// Adds up what `$counts` selects, by token and verdict, for the hundred tokens with the most.
macro_rules! top {
    ($transaction:expr, $query:expr, $counts:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            TopRow,
            "WITH sums AS (
                 SELECT token_id, verdict, sum(verifications)::bigint AS verifications, count(*) AS counts
                 FROM (" + $counts + r#" LIMIT $4::bigint + 1) AS count
                 GROUP BY token_id, verdict
             ), top AS (
                 SELECT token_id, sum(verifications) AS total FROM sums
                 GROUP BY token_id ORDER BY total DESC, token_id LIMIT 100
             )
             SELECT sums.token_id AS "token_id!", verdict AS "verdict!", verifications AS "verifications!",
                 name AS "name?", user_id AS "user_id?", owner_kind AS "owner_kind?",
                 (SELECT sum(counts) FROM sums)::bigint AS "counts!"
             FROM top JOIN sums ON sums.token_id = top.token_id LEFT JOIN tokens ON id = top.token_id
             ORDER BY total DESC, top.token_id, verdict"#,
            $query.range.start,
            $query.range.end,
            $query.step == Step::Day,
            MAX_COUNTS
            $(, $argument)*
        )
        .fetch_all($transaction)
        .await?
    };
}

/// Calls `points` or `top` with the counts of a user's tokens: token by token, each from the primary key.
macro_rules! of_user {
    ($what:ident, $transaction:expr, $query:expr, $organization:expr, $user:expr, $kind:expr) => {
        $what!(
            $transaction,
            $query,
            "SELECT count.* FROM (
                 SELECT id FROM tokens
                 WHERE owner_key(organization_id, user_id) = owner_key($5, $6) AND organization_id = $5
                     AND user_id = $6 AND ($7::text IS NULL OR owner_kind = $7)
             ) AS own CROSS JOIN LATERAL (
                 SELECT token_id, hour AS time, verdict, verifications FROM usage_hours
                 WHERE token_id = own.id AND hour < $2
                     AND hour >= CASE WHEN $3 THEN greatest($1, (SELECT hour FROM usage_rollup)) ELSE $1 END
                 UNION ALL
                 SELECT token_id, day, verdict, verifications FROM usage_days
                 WHERE $3 AND token_id = own.id AND day >= $1 AND day < $2
                 LIMIT $4::bigint + 1
             ) AS count",
            $organization,
            $user,
            $kind
        )
    };
}

impl Store {
    /// Reads what was counted; `None`: there is more than is added up at once.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn read_usage(&self, query: &UsageQuery) -> Result<Option<UsageAnswer>, StoreError> {
        self.within(async {
            // A transaction for its statement timeout, and so that no statement reads a whole table.
            let mut transaction = self.begin().await?;
            transaction.scan_in_order().await?;
            let Some(points) = points(&mut transaction, query).await? else { return Ok(None) };
            let top = match query.top {
                0 => Some(Vec::new()),
                _ => top(&mut transaction, query).await?,
            };
            Ok(top.map(|top| UsageAnswer { points, top }))
        })
        .await
    }
}

async fn points(
    transaction: &mut Transaction,
    query: &UsageQuery,
) -> Result<Option<Vec<UsagePoint>>, StoreError> {
    let rows = match &query.scope {
        UsageScope::Token(id) => points!(
            transaction,
            query,
            "SELECT hour AS time, verdict, verifications FROM usage_hours
             WHERE token_id = $5 AND hour < $2
                 AND hour >= CASE WHEN $3 THEN greatest($1, (SELECT hour FROM usage_rollup)) ELSE $1 END
             UNION ALL
             SELECT day, verdict, verifications FROM usage_days
             WHERE $3 AND token_id = $5 AND day >= $1 AND day < $2",
            rows::uuid(*id)
        ),
        UsageScope::User(organization, user, kind) => of_user!(
            points,
            transaction,
            query,
            organization.as_str(),
            user.as_str(),
            kind.map(OwnerKind::word)
        ),
        UsageScope::Organization(organization) => points!(
            transaction,
            query,
            "SELECT hour AS time, verdict, verifications FROM usage_totals
             WHERE organization_id = $5 AND hour >= $1 AND hour < $2",
            organization.as_str()
        ),
    };
    if rows.iter().map(|row| row.counts).sum::<i64>() > MAX_COUNTS {
        return Ok(None);
    }
    let mut points: Vec<UsagePoint> = Vec::new();
    for row in rows {
        let count = count(row.verdict, row.verifications);
        let start = row.start.clock()?;
        match points.last_mut().filter(|last| last.start == start) {
            Some(last) => last.counts.push(count),
            None => points.push(UsagePoint { start, counts: vec![count] }),
        }
    }
    Ok(Some(points))
}

async fn top(
    transaction: &mut Transaction,
    query: &UsageQuery,
) -> Result<Option<Vec<TokenUsage>>, StoreError> {
    let rows = match &query.scope {
        UsageScope::Token(_) => Vec::new(),
        UsageScope::User(organization, user, kind) => {
            of_user!(top, transaction, query, organization.as_str(), user.as_str(), kind.map(OwnerKind::word))
        }
        UsageScope::Organization(organization) => top!(
            transaction,
            query,
            "SELECT token_id, hour AS time, verdict, verifications FROM usage_hours
             WHERE organization_id = $5 AND hour < $2
                 AND hour >= CASE WHEN $3 THEN greatest($1, (SELECT hour FROM usage_rollup)) ELSE $1 END
             UNION ALL
             SELECT token_id, day, verdict, verifications FROM usage_days
             WHERE $3 AND organization_id = $5 AND day >= $1 AND day < $2",
            organization.as_str()
        ),
    };
    if rows.first().is_some_and(|row| row.counts > MAX_COUNTS) {
        return Ok(None);
    }
    let mut top: Vec<TokenUsage> = Vec::new();
    for row in rows {
        let (id, count) = (rows::token_id(row.token_id), count(row.verdict, row.verifications));
        if let Some(last) = top.last_mut().filter(|last| last.id == id) {
            last.counts.push(count);
            continue;
        }
        let kind = row.owner_kind.and_then(|word| OwnerKind::from_word(&word));
        let named = row.name.zip(row.user_id).zip(kind).map(|((name, user), kind)| (name, user, kind));
        top.push(TokenUsage { id, named, counts: vec![count] });
    }
    top.truncate(query.top as usize);
    Ok(Some(top))
}

fn count(verdict: i16, verifications: i64) -> VerdictCount {
    VerdictCount { verdict, verifications: u64::try_from(verifications).unwrap_or(0) }
}
