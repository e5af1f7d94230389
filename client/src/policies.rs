//! Policies: an organization's rules for its tokens, the tokens that break them, and enforcement.
//! The types of the calls, and the calls.

use std::num::NonZeroU32;
use std::time::Duration;

use time::OffsetDateTime;
use tokend_core::domain::{OrganizationId, PlanName, Principal, Rule, Scopes};

use crate::client::{Client, effective};
use crate::error::Error;
use crate::pages::{Page, Pages};
use crate::proto;
use crate::requests::Changed;
use crate::retry::Repeatable;
use crate::token::{TokenStatus, duration, scopes, status, texts, time};

/// What an organization allows its tokens; the default is everything. No policy applies to a token
/// with `tokend:root`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The longest time from a token's creation to its expiration, in whole seconds; `None`: unlimited.
    pub longest_lifetime: Option<Duration>,
    /// Every token must expire.
    pub expiration_required: bool,
    /// The longest grace of a rotated token, in whole seconds, up to 30 days; `None`: 30 days.
    pub longest_grace: Option<Duration>,
    /// The most tokens of a user that are neither revoked nor expired; `None`: unlimited.
    pub most_active_tokens_per_user: Option<NonZeroU32>,
    /// The scopes that must cover every scope of a token; empty: any scope.
    pub allowed_scopes: Scopes,
    /// A superseded token that is used to rotate has its family revoked.
    pub reuse_detection: bool,
    /// Every token must have a plan.
    pub plan_required: bool,
    /// The plan of tokens that are created without one; `None`: none.
    pub default_plan: Option<PlanName>,
}

/// A stored policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPolicy {
    /// The organization.
    pub organization_id: OrganizationId,
    /// Its policy.
    pub policy: Policy,
    /// The caller that set it last; `None`: it was never set.
    pub updated_by: Option<Principal>,
    /// When it was set last.
    pub update_time: Option<OffsetDateTime>,
}

/// A token that breaks a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyBreach {
    /// The token before enforcement.
    pub token: TokenStatus,
    /// The broken rules, except for those that are newer than this client.
    pub rules: Vec<Rule>,
    /// What enforcement does about it.
    pub remedy: Remedy,
}

/// What enforcement does to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// It is revoked.
    Revoke,
    /// It keeps less.
    #[non_exhaustive]
    Narrow {
        /// Its earlier expiration; `None`: unchanged.
        expire_time: Option<OffsetDateTime>,
        /// The scopes that it loses.
        removed_scopes: Scopes,
    },
}

impl Client {
    /// Reads the policy of an organization (`None`: of the caller's own).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_policy(&self, organization_id: Option<&str>) -> Result<StoredPolicy, Error> {
        let message = proto::GetPolicyRequest { organization_id: organization(organization_id) };
        self.run(Repeatable::Yes, message, |mut raw, request| async move { raw.get_policy(request).await })
            .await?
            .try_into()
    }

    /// Sets the whole policy of an organization (`None`: `default`): omitted fields are unlimited.
    /// Applies to tokens created, rotated or changed afterwards. Not retried automatically: it
    /// might undo another client's change.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update_policy(
        &self,
        organization_id: Option<&str>,
        policy: &Policy,
    ) -> Result<StoredPolicy, Error> {
        let message = proto::UpdatePolicyRequest {
            organization_id: organization(organization_id),
            policy: Some(policy.into()),
        };
        let set = self
            .run(Repeatable::No, message, |mut raw, request| async move { raw.update_policy(request).await });
        let proto::UpdatePolicyResponse { organization_id, policy, updated_by, update_time } = set.await?;
        proto::GetPolicyResponse { organization_id, policy, updated_by, update_time }.try_into()
    }

    /// Reads a page of the tokens of an organization (`None`: the caller's own) that would break a
    /// policy (`None`: the organization's own), with what [`Self::enforce_policy`] would do to
    /// each. Changes nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check_policy(
        &self,
        organization_id: Option<&str>,
        policy: Option<&Policy>,
        after: Option<&str>,
    ) -> Result<Page<PolicyBreach>, Error> {
        let message = proto::CheckPolicyRequest {
            organization_id: organization(organization_id),
            policy: policy.map(Into::into),
            page_token: after.unwrap_or_default().to_owned(),
        };
        let page = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.check_policy(request).await })
            .await?;
        Page::read(page.breaches, page.next_page_token, PolicyBreach::try_from)
    }

    /// Reads all pages of [`Self::check_policy`].
    #[must_use]
    pub fn check_policy_pages(
        &self,
        organization_id: Option<&str>,
        policy: Option<&Policy>,
    ) -> Pages<PolicyBreach> {
        let (client, organization_id) = (self.clone(), organization_id.map(str::to_owned));
        let policy = policy.cloned();
        Pages::new(move |after| {
            let (client, organization_id, policy) = (client.clone(), organization_id.clone(), policy.clone());
            async move { client.check_policy(organization_id.as_deref(), policy.as_ref(), after.as_deref()).await }
        })
    }

    /// Enforces the policy of an organization (`None`: `default`) on a page of its tokens; returns
    /// each token as it was, and what was done to it. Call it with each page's `next` until there
    /// is none. Not retried automatically: a repeat would not return what a lost response
    /// contained. An interrupted enforcement may be started again.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enforce_policy(
        &self,
        organization_id: Option<&str>,
        after: Option<&str>,
    ) -> Result<Changed<Page<PolicyBreach>>, Error> {
        let message = proto::EnforcePolicyRequest {
            organization_id: organization(organization_id),
            page_token: after.unwrap_or_default().to_owned(),
        };
        let done = self
            .run(Repeatable::No, message, |mut raw, request| async move { raw.enforce_policy(request).await })
            .await?;
        Ok(Changed {
            changed: Page::read(done.breaches, done.next_page_token, PolicyBreach::try_from)?,
            effective_time: effective(done.effective_time)?,
        })
    }
}

fn organization(id: Option<&str>) -> String {
    id.unwrap_or_default().to_owned()
}

impl From<&Policy> for proto::Policy {
    fn from(policy: &Policy) -> Self {
        let most = policy.most_active_tokens_per_user.map_or(0, NonZeroU32::get);
        Self {
            longest_lifetime: policy.longest_lifetime.map(duration),
            expiration_required: policy.expiration_required,
            longest_grace: policy.longest_grace.map(duration),
            // No user has more.
            most_active_tokens_per_user: i32::try_from(most).unwrap_or(i32::MAX),
            allowed_scopes: texts(&policy.allowed_scopes),
            reuse_detection: policy.reuse_detection,
            plan_required: policy.plan_required,
            default_plan: policy.default_plan.as_ref().map_or("", PlanName::as_str).to_owned(),
        }
    }
}

impl TryFrom<proto::Policy> for Policy {
    type Error = Error;

    fn try_from(message: proto::Policy) -> Result<Self, Error> {
        let lasting = |name, given: Option<prost_types::Duration>| {
            given.map(Duration::try_from).transpose().map_err(|_| Error::invalid_response(name))
        };
        let default_plan = Some(&*message.default_plan).filter(|name| !name.is_empty());
        let most = u32::try_from(message.most_active_tokens_per_user)
            .map_err(|_| Error::invalid_response("most_active_tokens_per_user"))?;
        Ok(Self {
            longest_lifetime: lasting("longest_lifetime", message.longest_lifetime)?,
            expiration_required: message.expiration_required,
            longest_grace: lasting("longest_grace", message.longest_grace)?,
            most_active_tokens_per_user: NonZeroU32::new(most),
            allowed_scopes: scopes(&message.allowed_scopes)
                .map_err(|_| Error::invalid_response("allowed_scopes"))?,
            reuse_detection: message.reuse_detection,
            plan_required: message.plan_required,
            default_plan: default_plan
                .map(PlanName::parse)
                .transpose()
                .map_err(|_| Error::invalid_response("default_plan"))?,
        })
    }
}

impl TryFrom<proto::GetPolicyResponse> for StoredPolicy {
    type Error = Error;

    fn try_from(message: proto::GetPolicyResponse) -> Result<Self, Error> {
        let updated_by = Some(&*message.updated_by).filter(|principal| !principal.is_empty());
        let principal = |text| Principal::parse(text).ok_or_else(|| Error::invalid_response("updated_by"));
        Ok(Self {
            organization_id: OrganizationId::parse(&message.organization_id)
                .map_err(|_| Error::invalid_response("organization_id"))?,
            policy: message.policy.ok_or_else(|| Error::invalid_response("policy"))?.try_into()?,
            updated_by: updated_by.map(principal).transpose()?,
            update_time: time("update_time", message.update_time)?,
        })
    }
}

impl TryFrom<proto::PolicyBreach> for PolicyBreach {
    type Error = Error;

    fn try_from(message: proto::PolicyBreach) -> Result<Self, Error> {
        let remedy = if message.revoked {
            Remedy::Revoke
        } else {
            Remedy::Narrow {
                expire_time: time("new_expire_time", message.new_expire_time)?,
                removed_scopes: scopes(&message.removed_scopes)
                    .map_err(|_| Error::invalid_response("removed_scopes"))?,
            }
        };
        let rules = message.rules.iter().filter_map(|word| Rule::from_word(word)).collect();
        Ok(Self { token: status(message.token)?, rules, remedy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_round_trips_and_an_impossible_one_is_an_error() {
        let full = Policy {
            longest_lifetime: Some(Duration::from_hours(1)),
            expiration_required: true,
            longest_grace: Some(Duration::ZERO),
            most_active_tokens_per_user: NonZeroU32::new(7),
            allowed_scopes: scopes(&["repo:*".to_owned()]).unwrap(),
            reuse_detection: true,
            plan_required: true,
            default_plan: PlanName::parse("free").ok(),
        };
        for policy in [Policy::default(), full] {
            assert_eq!(Policy::try_from(proto::Policy::from(&policy)).unwrap(), policy);
        }
        let negative = prost_types::Duration { seconds: -1, nanos: 0 };
        for bad in [
            proto::Policy { longest_lifetime: Some(negative), ..Default::default() },
            proto::Policy { longest_grace: Some(negative), ..Default::default() },
            proto::Policy { most_active_tokens_per_user: -1, ..Default::default() },
            proto::Policy { allowed_scopes: vec!["*".to_owned()], ..Default::default() },
        ] {
            assert_eq!(Policy::try_from(bad).unwrap_err().kind(), crate::ErrorKind::InvalidResponse);
        }
    }

    #[test]
    fn a_rule_unknown_to_this_client_hides_no_breach() {
        let token = proto::Token {
            id: tokend_core::secret::TokenId::from_bytes([8; 16]).to_string(),
            organization_id: "acme".to_owned(),
            user_id: "ada".to_owned(),
            name: "laptop".to_owned(),
            state: proto::TokenState::Active.into(),
            create_time: Some(prost_types::Timestamp::default()),
            created_by: "bootstrap".to_owned(),
            ..Default::default()
        };
        let rules = vec!["newest".to_owned(), "longest_grace".to_owned()];
        let message = proto::PolicyBreach { token: Some(token), rules, revoked: true, ..Default::default() };
        let breach = PolicyBreach::try_from(message).unwrap();
        assert_eq!((breach.rules, breach.remedy), (vec![Rule::LongestGrace], Remedy::Revoke));
    }
}
