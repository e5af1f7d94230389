//! Says what is left of a token's limits, as the database has it. Called by `GetTokenLimits` and by the console. Spends
//! nothing, and does not know what replicas hold.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokend_core::limits::{Balance, Rate};

use super::{ActionError, Actions};
use crate::domain::plan::{Limit, LimitKind, LimitSubject};
use crate::domain::{Caller, PlanName, Token};
use crate::limits::{LimitStatus, StatusKind, family_subject, organization_subject, user_subject};
use crate::secret::TokenId;
use crate::store::StoredAllowance;

/// The limits of a token.
#[derive(Debug)]
pub struct TokenLimits {
    /// Its plan.
    pub plan: Option<PlanName>,
    /// In the order of the plan.
    pub limits: Vec<LimitStatus>,
    /// When this was so, by the database's clock.
    pub now: OffsetDateTime,
}

impl Actions {
    /// Reads the limits of a token, for a caller with `tokend:read` or `tokend:self`.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, the database.
    pub async fn token_limits(&self, caller: &Caller, id: TokenId) -> Result<TokenLimits, ActionError> {
        let (token, now) = self.get_token(caller, id).await?;
        let store = self.admission.reads(caller).await?;
        let plan = match &token.plan {
            Some(plan) => store.read_plan(&token.organization_id, plan).await?,
            None => None,
        };
        let Some(plan) = plan.map(|stored| stored.plan) else {
            return Ok(TokenLimits { plan: token.plan, limits: Vec::new(), now });
        };
        let subjects: Vec<_> = plan.limits().iter().map(|limit| subject(limit.per, &token)).collect();
        let (stored, now) = store.read_allowances(&plan, &subjects).await?;
        let limits =
            plan.limits().iter().zip(stored).filter_map(|(limit, stored)| status(limit, stored, now));
        Ok(TokenLimits { plan: token.plan, limits: limits.collect(), now })
    }
}

fn subject(per: LimitSubject, token: &Token) -> Arc<str> {
    match per {
        LimitSubject::User => user_subject(token.owner_kind, token.user_id.as_str()),
        LimitSubject::Organization => organization_subject(),
        // A token's successors count with it.
        _ => family_subject(&token.family().to_string()),
    }
}

/// Applies the rules of limits to what is stored; `None`: the plan has a rate that no plan can have.
fn status(limit: &Limit, stored: StoredAllowance, now: OffsetDateTime) -> Option<LimitStatus> {
    let none = LimitStatus {
        name: limit.name.as_str().into(),
        kind: StatusKind::Credits,
        limit: 0,
        remaining: 0,
        reset_time: None,
        admitted_in_outage: false,
        window: None,
    };
    match limit.kind {
        LimitKind::Rate { requests, period, burst, .. } => {
            let rate = Rate::new(requests, i64::try_from(period.whole_nanoseconds()).ok()?, burst)?;
            let nanos = i64::try_from(now.unix_timestamp_nanos()).ok()?;
            let grant = rate.lease(0, stored.rate, nanos, None, 0, 0);
            let full_time = Some(grant.allowance.full_time).filter(|full_time| *full_time > nanos);
            Some(LimitStatus {
                kind: StatusKind::Rate,
                limit: rate.burst(),
                remaining: grant.left,
                reset_time: full_time
                    .and_then(|time| OffsetDateTime::from_unix_timestamp_nanos(time.into()).ok()),
                window: Some(Duration::from_nanos(rate.refill_time().unsigned_abs())),
                ..none
            })
        }
        LimitKind::Credits { initial, refill } => {
            let balance = stored.balance.unwrap_or_else(|| Balance::initial(initial, refill, now));
            let debit = balance.debit(refill, now, 0, 0);
            Some(LimitStatus { remaining: debit.balance.credits, reset_time: debit.next_refill, ..none })
        }
        // There is no other.
        _ => None,
    }
}
