//! Leases shares of rates: many allowances in one statement, which executes the rules of [`Rate::lease`]. Called by
//! the lessor of limits. Must not be repeated after a failure: a repeated return would count twice.

use std::sync::Arc;
use std::time::Duration;

use tokend_core::limits::{Allowance, Grant, Returned};
use uuid::Uuid;

use super::clock::Epoch;
use super::connection::{Connection, within};
use super::{StoreError, confirmed};
use crate::telemetry::notices;

/// Names one allowance: a limit of a plan, and what is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllowanceKey {
    /// The plan.
    pub plan_id: Uuid,
    /// The name of the limit.
    pub limit: Arc<str>,
    /// What is counted.
    pub subject: Arc<str>,
}

/// What is asked of one rate.
#[derive(Debug, Clone)]
pub struct RateAsk {
    /// Whose. A statement asks once for each key.
    pub key: AllowanceKey,
    /// How much to lease, if it fits.
    pub wanted: i64,
    /// Nothing is leased if not even this much fits.
    pub least: i64,
    /// What is left of an earlier lease.
    pub returned: Option<Returned>,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leased<T> {
    /// It was made.
    Granted(T),
    /// The plan has no such limit.
    NoLimit,
    /// Another statement created the row meanwhile: nothing was done.
    AskAgain,
}

/// What was leased of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLease {
    /// The lease.
    pub grant: Grant,
    /// When something was last leased before; equal to the lease's time: never.
    pub last_grant_time: i64,
}

impl Connection {
    /// Leases of all these rates; the answers are in the order of the requests.
    ///
    /// # Errors
    /// [`StoreError::OtherServer`]: nothing was done. With any other, everything or nothing was.
    pub async fn lease_rates(
        &mut self,
        asks: &[RateAsk],
        epoch: &Epoch,
        deadline: Duration,
    ) -> Result<Vec<Leased<RateLease>>, StoreError> {
        let plans: Vec<_> = asks.iter().map(|ask| ask.key.plan_id).collect();
        let limits: Vec<_> = asks.iter().map(|ask| ask.key.limit.to_string()).collect();
        let subjects: Vec<_> = asks.iter().map(|ask| ask.key.subject.to_string()).collect();
        let (wanted, least): (Vec<_>, Vec<_>) = asks.iter().map(|ask| (ask.wanted, ask.least)).unzip();
        let returned = |field: fn(&Returned) -> i64| -> Vec<Option<i64>> {
            asks.iter().map(|ask| ask.returned.as_ref().map(field)).collect()
        };
        let statement = sqlx::query_file!(
            "src/store/lease_rates.sql",
            epoch.as_str(),
            &plans,
            &limits,
            &subjects,
            &wanted,
            &returned(|returned| returned.amount) as &[Option<i64>],
            &returned(|returned| returned.lease_time) as &[Option<i64>],
            &returned(|returned| returned.era) as &[Option<i64>],
            &returned(|returned| returned.revision) as &[Option<i64>],
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
                *answer = match (row.full_time, row.lease_time, row.era, row.revision, row.amount, row.rest) {
                    (
                        Some(full_time),
                        Some(lease_time),
                        Some(era),
                        Some(revision),
                        Some(amount),
                        Some(left),
                    ) => {
                        let allowance = Allowance { full_time, lease_time, era, revision };
                        let grant = Grant { allowance, amount, left, retry_after: row.retry_after };
                        let last_grant_time = row.last_grant_time.unwrap_or(lease_time);
                        Leased::Granted(RateLease { grant, last_grant_time })
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
