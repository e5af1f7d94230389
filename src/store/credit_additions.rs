//! Adds credits to balances and reads what is stored of limits, apart from leases. Called by the actions that add credits
//! and show limits. Knows no token.

use std::sync::Arc;

use time::OffsetDateTime;
use tokend_core::limits::{Allowance, Balance, Refill};
use uuid::Uuid;

use super::allowances::AllowanceKey;
use super::columns::Time;
use super::plans::{period, subject_of};
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::domain::plan::{LimitSubject, Plan};
use crate::domain::{OrganizationId, PlanName};
use tokend_core::limits::RefillMode;

/// A limit of credits.
#[derive(Debug, Clone, Copy)]
pub struct CreditLimit {
    /// Its plan.
    pub plan_id: Uuid,
    /// What it counts together.
    pub per: LimitSubject,
    /// The first balance.
    pub initial: i64,
    /// What the calendar adds.
    pub refill: Option<Refill>,
}

/// Credits that were added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// To which balance.
    pub key: AllowanceKey,
    /// How many.
    pub amount: i64,
    /// Who added them.
    pub added_by: String,
}

/// What is stored of one limit and one subject; nothing: it was never used.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoredAllowance {
    /// Of a rate.
    pub rate: Option<Allowance>,
    /// Of credits.
    pub balance: Option<Balance>,
}

impl Transaction {
    /// Reads a limit of credits of a plan; `None`: the plan has no such limit.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn read_credits(
        &mut self,
        organization_id: &OrganizationId,
        plan: &PlanName,
        limit: &PlanName,
    ) -> Result<Option<CreditLimit>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT p.plan_id, l.per, l.initial AS "initial!", l.refill_amount, l.refill_period, l.refill_adds
               FROM plans p JOIN plan_limits l ON l.plan_id = p.plan_id
               WHERE p.organization_id = $1 AND p.name = $2 AND l.name = $3 AND l.kind = 'credits'"#,
            organization_id.as_str(),
            plan.as_str(),
            limit.as_str()
        )
        .fetch_optional(self)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let corrupt = |column| StoreError::Corrupt { table: "plan_limits", column };
        let refill = match (row.refill_amount, row.refill_period, row.refill_adds) {
            (Some(amount), Some(word), Some(adds)) => Some(Refill {
                amount,
                period: period(&word).ok_or_else(|| corrupt("refill_period"))?,
                mode: if adds { RefillMode::Add } else { RefillMode::Replace },
            }),
            _ => None,
        };
        let per = subject_of(&row.per).ok_or_else(|| corrupt("per"))?;
        Ok(Some(CreditLimit { plan_id: row.plan_id, per, initial: row.initial, refill }))
    }

    /// Locks a balance; creates it if it was never used. After the locks of tokens and plans.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_balance(&mut self, key: &AllowanceKey, limit: &CreditLimit) -> Result<(), StoreError> {
        let now = self.time().await?;
        let Balance { credits, period_start } = Balance::initial(limit.initial, limit.refill, now);
        sqlx::query!(
            "INSERT INTO credit_balances (plan_id, limit_name, subject, balance, period_start, debited, leased, returned,
                 lost, lease_time)
             VALUES ($1, $2, $3, $4, $5, 0, 0, 0, 0, $6) ON CONFLICT DO NOTHING",
            key.plan_id,
            &*key.limit,
            &*key.subject,
            credits,
            period_start,
            now
        )
        .execute(&mut *self)
        .await?;
        sqlx::query!(
            "SELECT FROM credit_balances WHERE plan_id = $1 AND limit_name = $2 AND subject = $3 FOR UPDATE",
            key.plan_id,
            &*key.limit,
            &*key.subject
        )
        .fetch_one(self)
        .await?;
        Ok(())
    }

    /// Reads a locked balance, with the refills up to `now`.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn refilled_balance(
        &mut self,
        key: &AllowanceKey,
        limit: &CreditLimit,
        now: OffsetDateTime,
    ) -> Result<Balance, StoreError> {
        let row = sqlx::query!(
            r#"SELECT balance, period_start AS "period_start: Time" FROM credit_balances
               WHERE plan_id = $1 AND limit_name = $2 AND subject = $3"#,
            key.plan_id,
            &*key.limit,
            &*key.subject
        )
        .fetch_one(self)
        .await?;
        let balance = Balance { credits: row.balance, period_start: row.period_start.clock()? };
        Ok(balance.refilled(limit.refill, now))
    }

    /// Returns the addition of this request and the balance after it, if it was made.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn addition(&mut self, request_mac: &[u8]) -> Result<Option<(Addition, i64)>, StoreError> {
        let row = sqlx::query!(
            "SELECT plan_id, limit_name, subject, amount, balance, added_by FROM credit_additions
             WHERE request_mac = $1",
            request_mac
        )
        .fetch_optional(self)
        .await?;
        Ok(row.map(|row| {
            let (limit, subject) = (Arc::from(row.limit_name), Arc::from(row.subject));
            let key = AllowanceKey { plan_id: row.plan_id, limit, subject };
            (Addition { key, amount: row.amount, added_by: row.added_by }, row.balance)
        }))
    }

    /// Writes a locked balance to which credits were added, and records the addition; returns whether no other with this
    /// request id was recorded meanwhile.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn add_credits(
        &mut self,
        request_mac: &[u8],
        Addition { key, amount, added_by }: &Addition,
        balance: Balance,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        sqlx::query!(
            "UPDATE credit_balances SET balance = $4, period_start = $5, lease_time = $6
             WHERE plan_id = $1 AND limit_name = $2 AND subject = $3",
            key.plan_id,
            &*key.limit,
            &*key.subject,
            balance.credits,
            balance.period_start,
            now
        )
        .execute(&mut *self)
        .await?;
        let recorded = sqlx::query!(
            "INSERT INTO credit_additions (request_mac, plan_id, limit_name, subject, amount, balance, added_by, add_time)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            request_mac,
            key.plan_id,
            &*key.limit,
            &*key.subject,
            amount,
            balance.credits,
            added_by,
            now
        )
        .execute(&mut *self)
        .await?;
        self.note_change();
        Ok(recorded.rows_affected() == 1)
    }
}

impl Store {
    /// Reads what is stored of the limits of a plan, each with its subject, and the time.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn read_allowances(
        &self,
        plan: &Plan,
        subjects: &[Arc<str>],
    ) -> Result<(Vec<StoredAllowance>, OffsetDateTime), StoreError> {
        let names: Vec<_> = plan.limits().iter().map(|limit| limit.name.as_str().to_owned()).collect();
        let subjects: Vec<_> = subjects.iter().map(ToString::to_string).collect();
        self.within(async {
            let rows = sqlx::query!(
                r#"SELECT clock_timestamp() AS "now!: Time", a.full_time AS "full_time?", a.lease_time AS "lease_time?",
                       a.era AS "era?", a.revision AS "revision?", b.balance AS "balance?",
                       b.period_start AS "period_start?: Time"
                   FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS asked (limit_name, subject, position)
                       LEFT JOIN plans p ON p.organization_id = $1 AND p.name = $2
                       LEFT JOIN rate_allowances a ON a.plan_id = p.plan_id AND a.limit_name = asked.limit_name
                           AND a.subject = asked.subject
                       LEFT JOIN credit_balances b ON b.plan_id = p.plan_id AND b.limit_name = asked.limit_name
                           AND b.subject = asked.subject
                   ORDER BY asked.position"#,
                plan.organization_id.as_str(),
                plan.name.as_str(),
                &names,
                &subjects
            )
            .fetch_all(self.single()?)
            .await?;
            let mut now = OffsetDateTime::UNIX_EPOCH;
            let mut stored = Vec::new();
            for row in rows {
                now = row.now.clock()?;
                let rate = match (row.full_time, row.lease_time, row.era, row.revision) {
                    (Some(full_time), Some(lease_time), Some(era), Some(revision)) => {
                        Some(Allowance { full_time, lease_time, era, revision })
                    }
                    _ => None,
                };
                let balance = match (row.balance, row.period_start) {
                    (Some(credits), Some(start)) => Some(Balance { credits, period_start: start.clock()? }),
                    _ => None,
                };
                stored.push(StoredAllowance { rate, balance });
            }
            Ok((stored, now))
        })
        .await
    }
}
