//! Debits credits ahead of spending and settles what was debited: many balances in one statement, which executes the
//! rules of [`Balance`]. Called by the lessor of limits. A lease is settled once, by its id, so a settlement may be
//! repeated; a debit may not.

use std::time::Duration;

use time::OffsetDateTime;
use tokend_core::limits::{Balance, Debit};
use uuid::Uuid;

use super::allowances::{AllowanceKey, Leased};
use super::clock::Epoch;
use super::columns::Time;
use super::connection::{Connection, within};
use super::{Store, StoreError, confirmed};
use crate::telemetry::notices;

/// What is asked of one balance.
#[derive(Debug, Clone)]
pub struct CreditAsk {
    /// Whose. A statement asks once for each key.
    pub key: AllowanceKey,
    /// How much to debit, if there is as much.
    pub wanted: i64,
    /// Nothing is debited if there is not even this much.
    pub least: i64,
    /// The new lease.
    pub lease_id: Uuid,
}

/// What is left of a lease that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The lease.
    pub lease_id: Uuid,
    /// How much; at most the lease's amount counts.
    pub rest: i64,
}

/// What was debited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditLease {
    /// The debit.
    pub debit: Debit,
    /// The database's time of it.
    pub time: OffsetDateTime,
    /// The revision of the plan.
    pub revision: i64,
    /// Whether others may return what they leased.
    pub leased: bool,
}

impl Connection {
    /// Settles these leases and debits all these balances; the answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StoreError::OtherServer`]: nothing was done. With any other, everything or nothing was.
    pub async fn debit_credits(
        &mut self,
        asks: &[CreditAsk],
        settlements: &[Settlement],
        epoch: &Epoch,
        deadline: Duration,
    ) -> Result<Vec<Leased<CreditLease>>, StoreError> {
        let plans: Vec<_> = asks.iter().map(|ask| ask.key.plan_id).collect();
        let limits: Vec<_> = asks.iter().map(|ask| ask.key.limit.to_string()).collect();
        let subjects: Vec<_> = asks.iter().map(|ask| ask.key.subject.to_string()).collect();
        let wanted: Vec<_> = asks.iter().map(|ask| ask.wanted).collect();
        let least: Vec<_> = asks.iter().map(|ask| ask.least).collect();
        let leases: Vec<_> = asks.iter().map(|ask| ask.lease_id).collect();
        let ended: Vec<_> = settlements.iter().map(|settlement| settlement.lease_id).collect();
        let rests: Vec<_> = settlements.iter().map(|settlement| settlement.rest).collect();
        let statement = sqlx::query_file!(
            "src/store/debit_credits.sql",
            epoch.as_str(),
            &plans,
            &limits,
            &subjects,
            &wanted,
            &leases,
            &ended,
            &rests,
            &least,
        );
        within(deadline, async {
            let (rows, warned) = notices::watched(statement.fetch_all(self.0.single())).await;
            let rows = rows?;
            confirmed(warned)?;
            if rows.first().is_none_or(|row| !row.same_epoch) {
                return Err(StoreError::OtherServer);
            }
            let mut answers = vec![Leased::NoLimit; asks.len()];
            for row in rows {
                let position =
                    row.position.and_then(|position| usize::try_from(position).ok()?.checked_sub(1));
                let Some(answer) = position.and_then(|position| answers.get_mut(position)) else { continue };
                *answer = match (row.now, row.period_start, row.revision, row.amount, row.balance) {
                    (Some(now), Some(period_start), Some(revision), Some(amount), Some(credits)) => {
                        let balance = Balance { credits, period_start: period_start.clock()? };
                        let next_refill = row.next_refill.map(Time::clock).transpose()?;
                        let debit = Debit { balance, amount, next_refill };
                        Leased::Granted(CreditLease {
                            debit,
                            time: now.clock()?,
                            revision,
                            leased: row.leased == Some(true),
                        })
                    }
                    _ if row.has_limit => Leased::AskAgain,
                    _ => Leased::NoLimit,
                };
            }
            Ok(answers)
        })
        .await
    }
}

/// The most rows that one statement deletes.
const BATCH: i64 = 1_000;

impl Store {
    /// Deletes what says nothing: rates that have been full for a day, what belongs to no plan, and additions that can no
    /// longer be repeated. Returns how many rows it deleted.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_allowances(&self) -> Result<u64, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"WITH rates AS (
                       DELETE FROM rate_allowances WHERE (plan_id, limit_name, subject) IN (
                           SELECT a.plan_id, a.limit_name, a.subject FROM rate_allowances a
                           WHERE a.full_time < (extract(epoch FROM clock_timestamp() - interval '1 day') * 1000000000)::bigint
                               OR NOT EXISTS (SELECT FROM plans p WHERE p.plan_id = a.plan_id)
                           LIMIT $1 FOR UPDATE SKIP LOCKED)
                       RETURNING 1
                   ), balances AS (
                       DELETE FROM credit_balances WHERE (plan_id, limit_name, subject) IN (
                           SELECT b.plan_id, b.limit_name, b.subject FROM credit_balances b
                           WHERE NOT EXISTS (SELECT FROM plans p WHERE p.plan_id = b.plan_id)
                           LIMIT $1 FOR UPDATE SKIP LOCKED)
                       RETURNING 1
                   ), leases AS (
                       DELETE FROM credit_leases WHERE lease_id IN (
                           SELECT l.lease_id FROM credit_leases l
                           WHERE NOT EXISTS (SELECT FROM plans p WHERE p.plan_id = l.plan_id)
                           LIMIT $1 FOR UPDATE SKIP LOCKED)
                       RETURNING 1
                   ), additions AS (
                       DELETE FROM credit_additions WHERE request_mac IN (
                           SELECT request_mac FROM credit_additions
                           WHERE add_time < clock_timestamp() - interval '7 days' ORDER BY add_time LIMIT $1)
                       RETURNING 1
                   )
                   SELECT (SELECT count(*) FROM rates) + (SELECT count(*) FROM balances) + (SELECT count(*) FROM leases)
                       + (SELECT count(*) FROM additions) AS "rows!""#,
                BATCH
            )
            .fetch_one(self.single()?)
            .await?;
            Ok(row.rows.cast_unsigned())
        })
        .await
    }

    /// Returns leases of more than this age by the database's clock, the oldest first. Others are that old too if it
    /// has jumped: see whether they are settled meanwhile.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn old_credit_leases(&self, age: Duration) -> Result<Vec<Uuid>, StoreError> {
        let age = time::Duration::try_from(age).unwrap_or(time::Duration::MAX);
        self.within(async {
            let leases = sqlx::query_scalar!(
                "SELECT lease_id FROM credit_leases
                 WHERE lease_time < clock_timestamp() - make_interval(secs => $1) ORDER BY lease_time LIMIT 10000",
                age.as_seconds_f64()
            );
            Ok(leases.fetch_all(self.single()?).await?)
        })
        .await
    }

    /// Counts these leases as lost unless they were settled; returns how many leases and credits they were. Their
    /// replicas have ended, or can no longer reach the database.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn lose_credit_leases(&self, leases: &[Uuid]) -> Result<(u64, u64), StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"WITH old AS MATERIALIZED (
                       SELECT lease_id, plan_id, limit_name, subject FROM credit_leases
                       WHERE lease_id = ANY($1)
                   ), locked AS MATERIALIZED (
                       SELECT b.plan_id, b.limit_name, b.subject FROM credit_balances b
                           JOIN (SELECT DISTINCT plan_id, limit_name, subject FROM old) o USING (plan_id, limit_name, subject)
                       FOR UPDATE OF b SKIP LOCKED
                   ), ended AS (
                       DELETE FROM credit_leases l USING old o, locked b
                       WHERE l.lease_id = o.lease_id AND b.plan_id = o.plan_id AND b.limit_name = o.limit_name
                           AND b.subject = o.subject
                       RETURNING l.plan_id, l.limit_name, l.subject, l.amount
                   ), counted AS (
                       UPDATE credit_balances b SET lost = lost + e.amount, leased = leased - e.amount
                       FROM (SELECT plan_id, limit_name, subject, sum(amount) AS amount FROM ended
                           GROUP BY plan_id, limit_name, subject) e
                       WHERE b.plan_id = e.plan_id AND b.limit_name = e.limit_name AND b.subject = e.subject
                   )
                   SELECT count(*) AS "leases!", least(coalesce(sum(amount), 0), 9223372036854775807)::bigint AS "credits!"
                   FROM ended"#,
                leases
            )
            .fetch_one(self.single()?)
            .await?;
            Ok((row.leases.cast_unsigned(), row.credits.cast_unsigned()))
        })
        .await
    }
}
