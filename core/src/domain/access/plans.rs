//! With which plans a caller may issue tokens. A caller with `tokend:self` or with a grant issues only tokens with its own
//! plan: with another plan, or with none, they may have wider limits. Called by the actions that create and change
//! tokens; knows no limit.

use super::bounds::within;
use super::{AccessError, Bound, Caller, Permission, ReservedScope};
use crate::domain::plan::PlanName;

impl Caller {
    /// Returns the plan of a token that the caller issues without naming one, where the policy has no default; `None`: no
    /// plan.
    #[must_use]
    pub fn issued_plan(&self) -> Option<&PlanName> {
        self.plans()?.first()
    }

    /// Checks that the caller may issue a token with this plan, or without one. `default`: that of the policy.
    ///
    /// # Errors
    /// The plan is beyond the caller's bounds.
    pub fn may_issue_plan(
        &self,
        plan: Option<&PlanName>,
        default: Option<&PlanName>,
    ) -> Result<(), AccessError> {
        let Some(plans) = self.plans() else { return Ok(()) };
        let allowed = match plan {
            Some(plan) => plans.contains(plan) || default == Some(plan),
            None => plans.is_empty() && default.is_none(),
        };
        within(allowed, Bound::Plan)
    }

    /// Checks that the caller may rotate a token with this plan, or without one, which gives it a secret with the token's
    /// limits. A caller without a plan has none that these could exceed. A person in a portal session may, too: the token is
    /// the person's own, and a rotation is no refill.
    ///
    /// # Errors
    /// The plan is beyond the caller's bounds.
    pub fn may_rotate_plan(
        &self,
        plan: Option<&PlanName>,
        default: Option<&PlanName>,
    ) -> Result<(), AccessError> {
        let is_limited = self.plans().is_some_and(|plans| !plans.is_empty());
        if is_limited && self.vouching.is_none() { self.may_issue_plan(plan, default) } else { Ok(()) }
    }

    /// Checks that the caller may change the plan of a token. A caller that manages only the tokens of its own user may
    /// not: that could widen their limits.
    ///
    /// # Errors
    /// One of the plans is beyond the caller's bounds.
    pub fn may_change_plan(
        &self,
        (before, after): (Option<&PlanName>, Option<&PlanName>),
        default: Option<&PlanName>,
    ) -> Result<(), AccessError> {
        within(self.holds(ReservedScope::Write), Bound::Plan)?;
        self.may_issue_plan(before, default)?;
        self.may_issue_plan(after, default)
    }

    /// Checks that the caller may set and delete plans. With a grant it may not: a plan limits also its own tokens and
    /// those of other users.
    ///
    /// # Errors
    /// The caller lacks `tokend:write`, or has a grant.
    pub fn may_set_plans(&self) -> Result<(), AccessError> {
        self.require(Permission::WriteAll)?;
        within(self.bounds().is_none(), Bound::Plan)
    }

    /// Returns the plans that the caller may name besides the policy's default; `None`: all. Without any it issues only
    /// tokens without a plan.
    fn plans(&self) -> Option<&[PlanName]> {
        let holder = self.bounds()?;
        Some(match self.vouching.as_deref() {
            // A person in a portal session is bounded even if the caller that vouches is not.
            Some(vouching) => vouching.plans().unwrap_or_default(),
            None => holder.plans(),
        })
    }
}
