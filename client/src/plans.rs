//! Plans: named sets of limits, which tokens name. The types of the calls, and the calls. The server writes plans with
//! the conversions here.

use time::OffsetDateTime;
use tokend_core::domain::plan::{Limit, LimitKind, LimitSubject, OutageBehavior, Plan};
use tokend_core::domain::{OrganizationId, OwnerKind, PlanName, Principal};
use tokend_core::limits::{CalendarPeriod, Refill, RefillMode};
use tokend_core::secret::TokenId;
use uuid::Uuid;

use crate::client::Client;
use crate::error::Error;
use crate::limits::LimitStatus;
use crate::pages::{Page, Pages};
use crate::proto;
use crate::proto::limit::Kind;
use crate::retry::Repeatable;
use crate::token::time;

/// A plan as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPlan {
    /// The plan.
    pub plan: Plan,
    /// The caller that set it last.
    pub updated_by: Principal,
    /// When it was set last.
    pub update_time: OffsetDateTime,
}

impl Client {
    /// Creates a plan, or replaces all limits of the one with its name. Not retried automatically: it might undo another
    /// client's change.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_plan(&self, plan: &Plan) -> Result<StoredPlan, Error> {
        let message = proto::Plan::from(plan);
        let message = proto::SetPlanRequest {
            organization_id: message.organization_id,
            name: message.name,
            limits: message.limits,
        };
        let set =
            self.run(Repeatable::No, message, |mut raw, request| async move { raw.set_plan(request).await });
        set.await?.plan.ok_or_else(|| Error::invalid_response("plan"))?.try_into()
    }

    /// Reads a plan of an organization (`None`: the caller's own).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_plan(
        &self,
        organization_id: Option<&str>,
        name: &PlanName,
    ) -> Result<StoredPlan, Error> {
        let message = proto::GetPlanRequest {
            organization_id: organization_id.unwrap_or_default().to_owned(),
            name: name.as_str().to_owned(),
        };
        let found =
            self.run(Repeatable::Yes, message, |mut raw, request| async move { raw.get_plan(request).await });
        found.await?.plan.ok_or_else(|| Error::invalid_response("plan"))?.try_into()
    }

    /// Reads a page of the plans of an organization (`None`: the caller's own, or all for a root caller).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_plans(
        &self,
        organization_id: Option<&str>,
        after: Option<&str>,
    ) -> Result<Page<StoredPlan>, Error> {
        let message = proto::ListPlansRequest {
            organization_id: organization_id.unwrap_or_default().to_owned(),
            page_size: 0,
            page_token: after.unwrap_or_default().to_owned(),
        };
        let page = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.list_plans(request).await })
            .await?;
        Page::read(page.plans, page.next_page_token, StoredPlan::try_from)
    }

    /// Reads all pages of [`Self::list_plans`].
    #[must_use]
    pub fn plan_pages(&self, organization_id: Option<&str>) -> Pages<StoredPlan> {
        let (client, organization_id) = (self.clone(), organization_id.map(str::to_owned));
        Pages::new(move |after| {
            let (client, organization_id) = (client.clone(), organization_id.clone());
            async move { client.list_plans(organization_id.as_deref(), after.as_deref()).await }
        })
    }

    /// Deletes a plan of an organization (`None`: the caller's own) that only ended tokens name. Returns how many
    /// these were. Not retried automatically: a plan with the same name may have been set meanwhile.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_plan(&self, organization_id: Option<&str>, name: &PlanName) -> Result<u64, Error> {
        let message = proto::DeletePlanRequest {
            organization_id: organization_id.unwrap_or_default().to_owned(),
            name: name.as_str().to_owned(),
        };
        let deleted = self
            .run(Repeatable::No, message, |mut raw, request| async move { raw.delete_plan(request).await })
            .await?;
        u64::try_from(deleted.ended_count).map_err(|_| Error::invalid_response("ended_count"))
    }
}

/// Credits to add to one balance, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditAddition {
    /// `None`: the caller's own organization.
    pub organization_id: Option<String>,
    /// The plan.
    pub plan: PlanName,
    /// A limit of credits of the plan.
    pub limit: PlanName,
    /// Whose balance: what the limit counts.
    pub subject: CreditSubject,
    /// How many: 1 to 2^53.
    pub amount: i64,
    /// The same for a repeat, new for another addition: within seven days an id adds once.
    pub request_id: Uuid,
}

/// Whose balance of a limit of credits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreditSubject {
    /// A token, with what it was rotated from and into.
    Token(TokenId),
    /// A user.
    User(OwnerKind, String),
    /// The whole organization.
    Organization,
}

/// The limits of a token as the database has them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenLimits {
    /// The token's plan; `None`: it has no limits.
    pub plan: Option<PlanName>,
    /// The limits, in the order of the plan. What replicas hold to spend counts as spent.
    pub limits: Vec<LimitStatus>,
    /// When this was so, by the database's clock.
    pub as_of_time: OffsetDateTime,
}

impl Client {
    /// Adds credits to a balance; returns the balance. Retried automatically: its id adds once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn add_credits(&self, addition: &CreditAddition) -> Result<i64, Error> {
        let mut message = proto::AddCreditsRequest {
            organization_id: addition.organization_id.clone().unwrap_or_default(),
            plan: addition.plan.as_str().to_owned(),
            limit: addition.limit.as_str().to_owned(),
            amount: addition.amount,
            request_id: addition.request_id.to_string(),
            ..Default::default()
        };
        match &addition.subject {
            CreditSubject::Token(id) => message.token_id = id.to_string(),
            CreditSubject::User(kind, user_id) => {
                message.user_id.clone_from(user_id);
                message.owner_kind = proto::OwnerKind::from(*kind).into();
            }
            CreditSubject::Organization => {}
        }
        let added = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.add_credits(request).await });
        Ok(added.await?.balance)
    }

    /// Reads the limits of a token as the database has them, and spends nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn token_limits(&self, id: TokenId) -> Result<TokenLimits, Error> {
        let message = proto::GetTokenLimitsRequest { token_id: id.to_string() };
        let found = self.run(Repeatable::Yes, message, |mut raw, request| async move {
            raw.get_token_limits(request).await
        });
        let found = found.await?;
        let plan = Some(found.plan).filter(|plan| !plan.is_empty());
        let as_of_time = time("as_of_time", found.as_of_time)?;
        Ok(TokenLimits {
            plan: plan
                .map(|plan| PlanName::parse(&plan))
                .transpose()
                .map_err(|_| Error::invalid_response("plan"))?,
            limits: found.limits.into_iter().map(LimitStatus::try_from).collect::<Result<_, _>>()?,
            as_of_time: as_of_time.ok_or_else(|| Error::invalid_response("as_of_time"))?,
        })
    }
}

impl From<&Plan> for proto::Plan {
    fn from(plan: &Plan) -> Self {
        Self {
            name: plan.name.as_str().to_owned(),
            organization_id: plan.organization_id.as_str().to_owned(),
            limits: plan.limits().iter().map(limit).collect(),
            ..Self::default()
        }
    }
}

fn limit(limit: &Limit) -> proto::Limit {
    let kind = match limit.kind {
        LimitKind::Rate { requests, period, burst, on_outage } => Some(Kind::Rate(proto::RateLimit {
            requests,
            period: Some(prost_types::Duration { seconds: period.whole_seconds(), nanos: 0 }),
            burst,
            on_outage: match on_outage {
                OutageBehavior::Admit => proto::OutageBehavior::Admit,
                // There is no other.
                _ => proto::OutageBehavior::Deny,
            }
            .into(),
        })),
        LimitKind::Credits { initial, refill } => {
            Some(Kind::Credits(proto::Credits { initial, refill: refill.map(self::refill) }))
        }
        // There is no other; tokend would refuse it.
        _ => None,
    };
    let per = match limit.per {
        LimitSubject::Token => proto::LimitSubject::Token,
        LimitSubject::User => proto::LimitSubject::User,
        LimitSubject::Organization => proto::LimitSubject::Organization,
        // There is no other; tokend would refuse it.
        _ => proto::LimitSubject::Unspecified,
    };
    proto::Limit { name: limit.name.as_str().to_owned(), per: per.into(), kind }
}

fn refill(refill: Refill) -> proto::Refill {
    let period = match refill.period {
        CalendarPeriod::Hour => proto::CalendarPeriod::Hour,
        CalendarPeriod::Day => proto::CalendarPeriod::Day,
        CalendarPeriod::Week => proto::CalendarPeriod::Week,
        CalendarPeriod::Month => proto::CalendarPeriod::Month,
        CalendarPeriod::Year => proto::CalendarPeriod::Year,
    };
    let mode = match refill.mode {
        RefillMode::Replace => proto::RefillMode::Replace,
        RefillMode::Add => proto::RefillMode::Add,
    };
    proto::Refill { amount: refill.amount, period: period.into(), mode: mode.into() }
}

impl TryFrom<proto::Plan> for StoredPlan {
    type Error = Error;

    fn try_from(message: proto::Plan) -> Result<Self, Error> {
        let organization_id = OrganizationId::parse(&message.organization_id)
            .map_err(|_| Error::invalid_response("organization_id"))?;
        let name = PlanName::parse(&message.name).map_err(|_| Error::invalid_response("name"))?;
        let limits = message.limits.iter().map(read_limit).collect::<Result<_, _>>()?;
        let plan = Plan::new(organization_id, name, limits).map_err(|_| Error::invalid_response("limits"))?;
        let updated_by =
            Principal::parse(&message.updated_by).ok_or_else(|| Error::invalid_response("updated_by"))?;
        let update_time = time("update_time", message.update_time)?;
        let update_time = update_time.ok_or_else(|| Error::invalid_response("update_time"))?;
        Ok(Self { plan, updated_by, update_time })
    }
}

fn read_limit(message: &proto::Limit) -> Result<Limit, Error> {
    let invalid = || Error::invalid_response("limits");
    let per = match message.per() {
        proto::LimitSubject::Token => LimitSubject::Token,
        proto::LimitSubject::User => LimitSubject::User,
        proto::LimitSubject::Organization => LimitSubject::Organization,
        proto::LimitSubject::Unspecified => return Err(invalid()),
    };
    let kind = match message.kind.as_ref().ok_or_else(invalid)? {
        Kind::Rate(rate) => {
            let period = rate.period.filter(|period| period.nanos == 0).ok_or_else(invalid)?;
            let on_outage = match rate.on_outage() {
                proto::OutageBehavior::Admit => OutageBehavior::Admit,
                proto::OutageBehavior::Deny | proto::OutageBehavior::Unspecified => OutageBehavior::Deny,
            };
            LimitKind::rate(rate.requests, time::Duration::seconds(period.seconds), rate.burst, on_outage)
        }
        Kind::Credits(credits) => {
            let refill = credits.refill.as_ref().map(read_refill).transpose()?;
            LimitKind::credits(credits.initial, refill)
        }
    };
    let name = PlanName::parse(&message.name).map_err(|_| invalid())?;
    Ok(Limit { name, per, kind: kind.map_err(|_| invalid())? })
}

fn read_refill(message: &proto::Refill) -> Result<Refill, Error> {
    let period = match message.period() {
        proto::CalendarPeriod::Hour => CalendarPeriod::Hour,
        proto::CalendarPeriod::Day => CalendarPeriod::Day,
        proto::CalendarPeriod::Week => CalendarPeriod::Week,
        proto::CalendarPeriod::Month => CalendarPeriod::Month,
        proto::CalendarPeriod::Year => CalendarPeriod::Year,
        proto::CalendarPeriod::Unspecified => return Err(Error::invalid_response("limits")),
    };
    let mode = match message.mode() {
        proto::RefillMode::Add => RefillMode::Add,
        proto::RefillMode::Replace | proto::RefillMode::Unspecified => RefillMode::Replace,
    };
    Ok(Refill { amount: message.amount, period, mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_round_trips_and_an_impossible_one_is_an_error() {
        let name = |text| PlanName::parse(text).unwrap();
        let subjects = [LimitSubject::Token, LimitSubject::User, LimitSubject::Organization];
        let periods = [
            CalendarPeriod::Hour,
            CalendarPeriod::Day,
            CalendarPeriod::Week,
            CalendarPeriod::Month,
            CalendarPeriod::Year,
        ];
        let mut limits: Vec<_> = subjects
            .into_iter()
            .zip(["a", "b", "c"])
            .map(|(per, text)| {
                let on_outage = if text == "a" { OutageBehavior::Admit } else { OutageBehavior::Deny };
                let kind = LimitKind::rate(10, time::Duration::MINUTE, 20, on_outage).unwrap();
                Limit { name: name(text), per, kind }
            })
            .collect();
        for (period, text) in periods.into_iter().zip(["d", "e", "f", "g", "h"]) {
            let mode = if text == "d" { RefillMode::Add } else { RefillMode::Replace };
            let refill = Some(Refill { amount: 5, period, mode }).filter(|_| text != "h");
            let kind = LimitKind::credits(7, refill).unwrap();
            limits.push(Limit { name: name(text), per: LimitSubject::Token, kind });
        }
        let plan = Plan::new(OrganizationId::parse("acme").unwrap(), name("free"), limits).unwrap();
        let good = proto::Plan {
            updated_by: "bootstrap".to_owned(),
            update_time: Some(prost_types::Timestamp::default()),
            ..proto::Plan::from(&plan)
        };
        assert_eq!(StoredPlan::try_from(good.clone()).unwrap().plan, plan);
        let changes: [fn(&mut proto::Plan); 5] = [
            |plan| plan.name.push(' '),
            |plan| plan.limits.clear(),
            |plan| plan.limits[0].kind = None,
            |plan| plan.limits[1].per = 99,
            |plan| plan.update_time = None,
        ];
        for change in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(StoredPlan::try_from(bad).unwrap_err().kind(), crate::ErrorKind::InvalidResponse);
        }
    }
}
