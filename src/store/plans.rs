//! Plans and their limits, as tokens name them. Called by the actions that set, read and delete plans, and by those that
//! set the plan of a token. Knows no rule of limits.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::columns::{Time, unreadable};
use super::transaction::Transaction;
use super::{Store, StoreError, rows};
use crate::domain::plan::{Limit, LimitKind, LimitSubject, OutageBehavior, Plan};
use crate::domain::plans::{PlanListing, PlanPosition, StoredPlan};
use crate::domain::{OrganizationId, PlanName, Principal};
use crate::secret::TokenId;
use tokend_core::limits::{CalendarPeriod, Refill, RefillMode};

/// A plan, with its limits in their order.
#[derive(Debug)]
struct PlanRow {
    organization_id: String,
    name: String,
    limits: Json<Vec<LimitColumns>>,
    updated_by: String,
    update_time: Time,
}

/// A row of `plan_limits`.
#[derive(Debug, Serialize, Deserialize)]
struct LimitColumns {
    name: String,
    position: i16,
    per: String,
    kind: String,
    requests: Option<i64>,
    period: Option<i64>,
    burst: Option<i64>,
    admits_in_outage: Option<bool>,
    initial: Option<i64>,
    refill_amount: Option<i64>,
    refill_period: Option<String>,
    refill_adds: Option<bool>,
}

/// A token that names a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanToken {
    /// Its id.
    pub id: TokenId,
    /// Whether it is revoked or expired.
    pub has_ended: bool,
}

/// Builds the query for the [`PlanRow`]s that the clauses select.
macro_rules! select_plans {
    ($clauses:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            PlanRow,
            r#"SELECT p.organization_id, p.name, p.updated_by, p.update_time AS "update_time: _",
                 (SELECT coalesce(jsonb_agg(to_jsonb(l) ORDER BY l.position), '[]') FROM plan_limits l
                  WHERE l.plan_id = p.plan_id) AS "limits!: Json<Vec<LimitColumns>>"
               FROM plans p "# + $clauses
            $(, $argument)*
        )
    };
}

impl Store {
    /// Reads a plan; `None`: there is none.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn read_plan(
        &self,
        organization_id: &OrganizationId,
        name: &PlanName,
    ) -> Result<Option<StoredPlan>, StoreError> {
        self.within(async {
            let query = select_plans!(
                "WHERE p.organization_id = $1 AND p.name = $2",
                organization_id.as_str(),
                name.as_str()
            );
            query.fetch_optional(self.single()?).await?.map(StoredPlan::try_from).transpose()
        })
        .await
    }

    /// Reads at most `number` plans after a position, by organization, then by name. Those that cannot be read are left
    /// out; the position is that of the last one, if there may be more.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn list_plans(
        &self,
        listing: &PlanListing,
        after: Option<PlanPosition>,
        number: u32,
    ) -> Result<(Vec<StoredPlan>, Option<PlanPosition>), StoreError> {
        self.within(async {
            let after = after.unwrap_or_default();
            let rows = select_plans!(
                "WHERE (p.organization_id, p.name) > ($2, $3) AND ($1::text IS NULL OR p.organization_id = $1)
                 ORDER BY p.organization_id, p.name LIMIT $4",
                listing.organization_id.as_ref().map(OrganizationId::as_str),
                after.organization_id,
                after.name,
                i64::from(number)
            )
            .fetch_all(self.single()?)
            .await?;
            let last = rows.last().filter(|_| rows.len() >= number as usize);
            let last = last.map(|row| PlanPosition {
                organization_id: row.organization_id.clone(),
                name: row.name.clone(),
            });
            let read = |row: PlanRow| {
                let organization = row.organization_id.clone();
                plan(row).map_err(|column| unreadable("plans", Some(organization), column)).ok()
            };
            Ok((rows.into_iter().filter_map(read).collect(), last))
        })
        .await
    }

    /// Returns the first tokens after this id that name a plan, by their ids.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn tokens_of_plan(
        &self,
        (organization_id, name): (&OrganizationId, &PlanName),
        after: Option<TokenId>,
        number: u32,
    ) -> Result<Vec<PlanToken>, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            transaction.scan_in_order().await?;
            let now = transaction.time().await?;
            let rows = sqlx::query!(
                r#"SELECT t.id, (t.revoke_time IS NOT NULL OR t.expire_time <= $4) IS TRUE AS "has_ended!"
                   FROM tokens t WHERE t.organization_id = $1 AND t.plan = $2 AND t.id > $3
                   ORDER BY t.id LIMIT $5"#,
                organization_id.as_str(),
                name.as_str(),
                after.map_or(Uuid::nil(), rows::uuid),
                now,
                i64::from(number)
            )
            .fetch_all(&mut transaction)
            .await?;
            let token = |id, has_ended| PlanToken { id: rows::token_id(id), has_ended };
            Ok(rows.into_iter().map(|row| token(row.id, row.has_ended)).collect())
        })
        .await
    }
}

impl Transaction {
    /// Returns whether a plan exists, and keeps it from being deleted. After the locks of tokens.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn hold_plan(
        &mut self,
        organization_id: &OrganizationId,
        name: &PlanName,
    ) -> Result<bool, StoreError> {
        // The lock that the foreign key of a token takes too.
        let found = sqlx::query!(
            "SELECT FROM plans WHERE organization_id = $1 AND name = $2 FOR KEY SHARE",
            organization_id.as_str(),
            name.as_str()
        )
        .fetch_optional(self)
        .await?;
        Ok(found.is_some())
    }

    /// Creates a plan, or replaces all limits of the one with its name.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn put_plan(
        &mut self,
        plan: &Plan,
        actor: &Principal,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let plan_id = sqlx::query_scalar!(
            "INSERT INTO plans (organization_id, name, updated_by, update_time) VALUES ($1, $2, $3, $4)
             ON CONFLICT (organization_id, name) DO UPDATE SET revision = plans.revision + 1,
                 updated_by = excluded.updated_by, update_time = excluded.update_time
             RETURNING plan_id",
            plan.organization_id.as_str(),
            plan.name.as_str(),
            actor.to_string(),
            now
        )
        .fetch_one(&mut *self)
        .await?;
        sqlx::query!("DELETE FROM plan_limits WHERE plan_id = $1", plan_id).execute(&mut *self).await?;
        let limits = plan.limits().iter().zip(0..).map(|(limit, position)| columns(limit, position));
        sqlx::query!(
            "INSERT INTO plan_limits (plan_id, name, position, per, kind, requests, period, burst, admits_in_outage,
                 initial, refill_amount, refill_period, refill_adds)
             SELECT $1, l.name, l.position, l.per, l.kind, l.requests, l.period, l.burst, l.admits_in_outage,
                 l.initial, l.refill_amount, l.refill_period, l.refill_adds
             FROM jsonb_to_recordset($2) AS l (name text, position smallint, per text, kind text, requests bigint,
                 period bigint, burst bigint, admits_in_outage boolean, initial bigint, refill_amount bigint,
                 refill_period text, refill_adds boolean)",
            plan_id,
            Json(limits.collect::<Vec<_>>()) as _
        )
        .execute(&mut *self)
        .await?;
        self.note_change();
        Ok(())
    }

    /// Locks a plan that is to be deleted: waits for transactions that set it as the plan of a token. Returns whether
    /// it exists.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_plan(
        &mut self,
        organization_id: &OrganizationId,
        name: &PlanName,
    ) -> Result<bool, StoreError> {
        let found = sqlx::query!(
            "SELECT FROM plans WHERE organization_id = $1 AND name = $2 FOR UPDATE",
            organization_id.as_str(),
            name.as_str()
        )
        .fetch_optional(self)
        .await?;
        Ok(found.is_some())
    }

    /// Deletes a plan under [`Self::lock_plan`], with its limits, unless a token names it. Returns whether it did.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn delete_plan(
        &mut self,
        organization_id: &OrganizationId,
        name: &PlanName,
    ) -> Result<bool, StoreError> {
        let deleted = sqlx::query!(
            "DELETE FROM plans p WHERE p.organization_id = $1 AND p.name = $2
                 AND NOT EXISTS (SELECT FROM tokens t WHERE t.organization_id = $1 AND t.plan = $2)",
            organization_id.as_str(),
            name.as_str()
        )
        .execute(&mut *self)
        .await?;
        self.note_change();
        Ok(deleted.rows_affected() > 0)
    }

    /// Takes the plan from those of these locked tokens that have ended at `now`, and records it. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn remove_plan(
        &mut self,
        ids: &[TokenId],
        name: &PlanName,
        actor: &Principal,
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let ids: Vec<_> = ids.iter().copied().map(rows::uuid).collect();
        let removed = sqlx::query_scalar!(
            "UPDATE tokens SET plan = NULL
             WHERE id = ANY($1) AND plan = $2 AND (revoke_time IS NOT NULL OR expire_time <= $3) RETURNING id",
            &ids,
            name.as_str(),
            now
        )
        .fetch_all(&mut *self)
        .await?;
        let removed: Vec<_> = removed.into_iter().map(rows::token_id).collect();
        self.append_plan_removals(&removed, name, actor, now).await?;
        Ok(removed.len() as u64)
    }
}

fn columns(limit: &Limit, position: i16) -> LimitColumns {
    let empty = LimitColumns {
        name: limit.name.as_str().to_owned(),
        position,
        per: subject_word(limit.per).to_owned(),
        kind: String::new(),
        requests: None,
        period: None,
        burst: None,
        admits_in_outage: None,
        initial: None,
        refill_amount: None,
        refill_period: None,
        refill_adds: None,
    };
    match limit.kind {
        LimitKind::Rate { requests, period, burst, on_outage } => LimitColumns {
            kind: "rate".to_owned(),
            requests: Some(requests),
            period: Some(period.whole_seconds()),
            burst: Some(burst),
            admits_in_outage: Some(on_outage == OutageBehavior::Admit),
            ..empty
        },
        LimitKind::Credits { initial, refill } => LimitColumns {
            kind: "credits".to_owned(),
            initial: Some(initial),
            refill_amount: refill.map(|refill| refill.amount),
            refill_period: refill.map(|refill| period_word(refill.period).to_owned()),
            refill_adds: refill.map(|refill| refill.mode == RefillMode::Add),
            ..empty
        },
        // There is no other.
        _ => empty,
    }
}

impl TryFrom<PlanRow> for StoredPlan {
    type Error = StoreError;

    fn try_from(row: PlanRow) -> Result<Self, StoreError> {
        plan(row).map_err(|column| StoreError::Corrupt { table: "plans", column })
    }
}

/// Converts a row; the error is the name of the column that cannot be read.
fn plan(row: PlanRow) -> Result<StoredPlan, &'static str> {
    let organization_id = OrganizationId::parse(&row.organization_id).map_err(|_| "organization_id")?;
    let name = PlanName::parse(&row.name).map_err(|_| "name")?;
    let limits = row.limits.0.into_iter().map(limit).collect::<Option<_>>().ok_or("limits")?;
    Ok(StoredPlan {
        plan: Plan::new(organization_id, name, limits).map_err(|_| "limits")?,
        updated_by: row.updated_by,
        update_time: row.update_time.moment().ok_or("update_time")?,
    })
}

fn limit(row: LimitColumns) -> Option<Limit> {
    let kind = match &*row.kind {
        "rate" => {
            let on_outage = if row.admits_in_outage? { OutageBehavior::Admit } else { OutageBehavior::Deny };
            LimitKind::rate(row.requests?, Duration::seconds(row.period?), row.burst?, on_outage).ok()?
        }
        "credits" => {
            let refill = match row.refill_amount {
                None => None,
                Some(amount) => Some(Refill {
                    amount,
                    period: period(&row.refill_period?)?,
                    mode: if row.refill_adds? { RefillMode::Add } else { RefillMode::Replace },
                }),
            };
            LimitKind::credits(row.initial?, refill).ok()?
        }
        _ => return None,
    };
    Some(Limit { name: PlanName::parse(&row.name).ok()?, per: subject_of(&row.per)?, kind })
}

pub(super) fn subject_of(word: &str) -> Option<LimitSubject> {
    let all = [LimitSubject::Token, LimitSubject::User, LimitSubject::Organization];
    all.into_iter().find(|per| subject_word(*per) == word)
}

const fn subject_word(subject: LimitSubject) -> &'static str {
    match subject {
        LimitSubject::User => "user",
        LimitSubject::Organization => "organization",
        // There is no other than that of a token.
        _ => "token",
    }
}

const PERIODS: [(CalendarPeriod, &str); 5] = [
    (CalendarPeriod::Hour, "hour"),
    (CalendarPeriod::Day, "day"),
    (CalendarPeriod::Week, "week"),
    (CalendarPeriod::Month, "month"),
    (CalendarPeriod::Year, "year"),
];

fn period_word(period: CalendarPeriod) -> &'static str {
    PERIODS.iter().find(|(known, _)| *known == period).map_or("", |(_, word)| word)
}

pub(super) fn period(word: &str) -> Option<CalendarPeriod> {
    PERIODS.iter().find(|(_, known)| *known == word).map(|(period, _)| *period)
}
