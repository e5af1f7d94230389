//! Policies: what an organization allows its tokens, which of them break it, and putting those right. What the calls
//! take and give, and the calls.

use std::num::NonZeroU32;
use std::time::Duration;

use time::OffsetDateTime;
use tokend_core::domain::{OrganizationId, Principal, Rule, Scopes};

use crate::client::{Client, effective};
use crate::error::Error;
use crate::pages::{Page, Pages};
use crate::proto;
use crate::requests::Changed;
use crate::retry::Repeatable;
use crate::token::{TokenStatus, duration, scopes, status, texts, time};

/// What an organization allows its tokens; the default is everything. No policy binds a token with `tokend:root`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// How long after its creation a token may expire at most, in whole seconds; `None`: any time.
    pub longest_lifetime: Option<Duration>,
    /// Every token must expire.
    pub expiration_required: bool,
    /// How long a rotated token may still be good at most, in whole seconds, up to 30 days; `None`: 30 days.
    pub longest_grace: Option<Duration>,
    /// How many tokens a user may have that are neither revoked nor expired; `None`: any number.
    pub most_active_tokens_per_user: Option<NonZeroU32>,
    /// What covers every scope that a token may have; empty: any scope.
    pub allowed_scopes: Scopes,
    /// A superseded token that is used to rotate takes its family with it.
    pub reuse_detection: bool,
}

/// A policy as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPolicy {
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// What it says.
    pub policy: Policy,
    /// Who set it last; `None`: nobody has.
    pub updated_by: Option<Principal>,
    /// When it was set last.
    pub update_time: Option<OffsetDateTime>,
}

/// A token that breaks a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyBreach {
    /// The token before anything is done about it.
    pub token: TokenStatus,
    /// What it breaks; without rules that are newer than this client.
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
    /// It goes on with less.
    #[non_exhaustive]
    Narrow {
        /// Its earlier end; `None`: its end stays.
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

    /// Sets the policy of an organization (`None`: `default`), whole: what it does not say is no longer limited.
    /// Binds what is created, rotated or changed from then on. Not repeated by itself: it might undo what somebody
    /// else has set since.
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

    /// Reads a page of the tokens of an organization (`None`: of the caller's own) that a policy would break (`None`:
    /// that the organization's own breaks), and what [`Self::enforce_policy`] would do to each. Changes nothing.
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

    /// Reads all that [`Self::check_policy`] tells.
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

    /// Puts a page of the tokens of an organization (`None`: `default`) within its policy, and tells how they were and
    /// what was done to each. To be called with what each page leads to until none follows. Not repeated by itself:
    /// what a lost answer told, the next one would not. What was broken off may be begun anew.
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
            // Nobody has more.
            most_active_tokens_per_user: i32::try_from(most).unwrap_or(i32::MAX),
            allowed_scopes: texts(&policy.allowed_scopes),
            reuse_detection: policy.reuse_detection,
        }
    }
}

impl TryFrom<proto::Policy> for Policy {
    type Error = Error;

    fn try_from(message: proto::Policy) -> Result<Self, Error> {
        let lasting = |name, given: Option<prost_types::Duration>| {
            given.map(Duration::try_from).transpose().map_err(|_| Error::answer(name))
        };
        let most = u32::try_from(message.most_active_tokens_per_user)
            .map_err(|_| Error::answer("most_active_tokens_per_user"))?;
        Ok(Self {
            longest_lifetime: lasting("longest_lifetime", message.longest_lifetime)?,
            expiration_required: message.expiration_required,
            longest_grace: lasting("longest_grace", message.longest_grace)?,
            most_active_tokens_per_user: NonZeroU32::new(most),
            allowed_scopes: scopes(&message.allowed_scopes).map_err(|_| Error::answer("allowed_scopes"))?,
            reuse_detection: message.reuse_detection,
        })
    }
}

impl TryFrom<proto::GetPolicyResponse> for StoredPolicy {
    type Error = Error;

    fn try_from(message: proto::GetPolicyResponse) -> Result<Self, Error> {
        let updated_by = Some(&*message.updated_by).filter(|principal| !principal.is_empty());
        let principal = |text| Principal::parse(text).ok_or_else(|| Error::answer("updated_by"));
        Ok(Self {
            organization_id: OrganizationId::parse(&message.organization_id)
                .map_err(|_| Error::answer("organization_id"))?,
            policy: message.policy.ok_or_else(|| Error::answer("policy"))?.try_into()?,
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
                    .map_err(|_| Error::answer("removed_scopes"))?,
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
    fn a_policy_reads_back_and_one_that_cannot_be_is_no_answer() {
        let full = Policy {
            longest_lifetime: Some(Duration::from_hours(1)),
            expiration_required: true,
            longest_grace: Some(Duration::ZERO),
            most_active_tokens_per_user: NonZeroU32::new(7),
            allowed_scopes: scopes(&["repo:*".to_owned()]).unwrap(),
            reuse_detection: true,
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
            assert_eq!(Policy::try_from(bad).unwrap_err().kind(), crate::ErrorKind::Answer);
        }
    }

    #[test]
    fn a_rule_that_is_newer_than_this_client_hides_no_breach() {
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
