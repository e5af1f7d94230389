//! Reads plans for those who count: their limits and their revision. Called by the lessor of limits.

use std::collections::HashMap;
use std::time::Duration;

use tokend_core::limits::{CalendarPeriod, Refill, RefillMode};
use uuid::Uuid;

use super::StoreError;
use super::connection::{Connection, within};
use crate::domain::{Limit, LimitKind, LimitSubject, OutageBehavior, PlanName};

/// Names a plan: its organization, and its name there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanKey {
    /// The organization.
    pub organization_id: Box<str>,
    /// The name.
    pub name: Box<str>,
}

/// A plan as it is stored.
#[derive(Debug, Clone)]
pub struct LoadedPlan {
    /// The plan.
    pub plan_id: Uuid,
    /// Its revision.
    pub revision: i64,
    /// Its limits in their order.
    pub limits: Vec<Limit>,
}

impl Connection {
    /// Reads these plans; missing ones are left out, and those that cannot be read.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn load_plans(
        &mut self,
        keys: impl Iterator<Item = &PlanKey>,
        deadline: Duration,
    ) -> Result<HashMap<PlanKey, LoadedPlan>, StoreError> {
        let (organizations, names): (Vec<_>, Vec<_>) =
            keys.map(|key| (key.organization_id.to_string(), key.name.to_string())).unzip();
        within(deadline, async {
            let rows = sqlx::query!(
                r#"SELECT p.organization_id, p.name AS plan, p.plan_id, p.revision, l.name AS "name?", l.per AS "per?", l.requests, l.period, l.burst,
                     l.admits_in_outage, l.initial, l.refill_amount, l.refill_period, l.refill_adds
                 FROM unnest($1::text[], $2::text[]) AS wanted (organization_id, name)
                     JOIN plans p ON p.organization_id = wanted.organization_id AND p.name = wanted.name
                     LEFT JOIN plan_limits l ON l.plan_id = p.plan_id
                 ORDER BY p.plan_id, l.position"#,
                &organizations,
                &names
            )
            .fetch_all(self.0.single())
            .await?;
            let mut plans: HashMap<_, Option<LoadedPlan>> = HashMap::new();
            for row in rows {
                let rate = row.requests.zip(row.period).zip(row.burst.zip(row.admits_in_outage));
                let kind = match (rate, row.initial) {
                    (Some(((requests, period), (burst, admits))), None) => {
                        let on_outage = if admits { OutageBehavior::Admit } else { OutageBehavior::Deny };
                        LimitKind::rate(requests, time::Duration::seconds(period), burst, on_outage).ok()
                    }
                    (None, Some(initial)) => {
                        let refill = row.refill_amount.zip(row.refill_period).zip(row.refill_adds);
                        let refill = refill.and_then(|((amount, period), adds)| {
                            let mode = if adds { RefillMode::Add } else { RefillMode::Replace };
                            Some(Refill { amount, period: period_of(&period)?, mode })
                        });
                        LimitKind::credits(initial, refill).ok()
                    }
                    _ => None,
                };
                let key = PlanKey { organization_id: row.organization_id.into(), name: row.plan.into() };
                let empty = LoadedPlan { plan_id: row.plan_id, revision: row.revision, limits: Vec::new() };
                let plan = plans.entry(key).or_insert(Some(empty));
                // A plan without limits has one row, without a name.
                let Some((name, per)) = row.name.zip(row.per) else { continue };
                let limit = PlanName::parse(&name).ok().zip(subject_of(&per)).zip(kind);
                match (limit, &mut *plan) {
                    (Some(((name, per), kind)), Some(plan)) => plan.limits.push(Limit { name, per, kind }),
                    // A part of a plan is no plan.
                    _ => *plan = None,
                }
            }
            Ok(plans.into_iter().filter_map(|(key, plan)| Some((key, plan?))).collect())
        })
        .await
    }
}

/// Returns the period of this word.
fn period_of(word: &str) -> Option<CalendarPeriod> {
    Some(match word {
        "hour" => CalendarPeriod::Hour,
        "day" => CalendarPeriod::Day,
        "week" => CalendarPeriod::Week,
        "month" => CalendarPeriod::Month,
        "year" => CalendarPeriod::Year,
        _ => return None,
    })
}

/// Returns the subject of this word.
fn subject_of(word: &str) -> Option<LimitSubject> {
    Some(match word {
        "token" => LimitSubject::Token,
        "user" => LimitSubject::User,
        "organization" => LimitSubject::Organization,
        _ => return None,
    })
}
