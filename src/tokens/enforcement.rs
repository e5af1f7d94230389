//! Checks existing tokens against a policy: as a dry run of any policy, or to enforce the
//! organization's own. Called by `CheckPolicy` and `EnforcePolicy`.

use time::{Duration, OffsetDateTime};

use super::{ActionError, Actions};
use crate::domain::counted_users::CountedUsers;
use crate::domain::enforcement::Breach;
use crate::domain::page::Position;
use crate::domain::policy::Policy;
use crate::domain::{Caller, OrganizationId, Permission, Scope};
use crate::store::OnChange;

/// The action that a page token belongs to.
#[derive(Debug, Clone, Copy)]
enum Walk {
    Check,
    Enforce,
}

/// One page of the breaches of a policy.
#[derive(Debug)]
pub struct BreachPage {
    /// Tokens that break it, as they are or, after enforcement, as they were; oldest first.
    pub breaches: Vec<Breach>,
    /// Continues after this page; `None`: it was the last one.
    pub next_page_token: Option<String>,
}

impl Actions {
    /// Lists the breaches of a policy by an organization's tokens, for a caller with `tokend:read`;
    /// `policy` `None`: the organization's own policy.
    ///
    /// # Errors
    /// [`ActionError`]: access, a page token of another listing, the database.
    pub async fn check_policy(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        policy: Option<Policy>,
        page_token: &str,
    ) -> Result<BreachPage, ActionError> {
        caller.require(Permission::ReadAll)?;
        let organization_id = caller.organization(organization_id)?;
        let store = self.admission.reads(caller).await?;
        let policy = match policy {
            Some(policy) => policy,
            None => store.read_policy(&organization_id).await?.policy,
        };
        let bound = bound(Walk::Check, &organization_id, &policy);
        let (from, mut counted) = if page_token.is_empty() {
            (None, CountedUsers::default())
        } else {
            let parsed = CountedUsers::parse_page_token(page_token, &bound, &self.keyring.peek())?;
            (Some(parsed.0), parsed.1)
        };
        let found = store.find_breaches(&organization_id, &policy, from, &mut counted).await?;
        let next_page_token =
            found.next.map(|position| counted.page_token(&position, &bound, &self.keyring.peek()));
        Ok(BreachPage { breaches: found.breaches, next_page_token })
    }

    /// Fixes one page of the breaches of the organization's policy, for a caller with `tokend:root`.
    /// Also returns the time from which every replica knows. `on_change` receives every token that is about
    /// to change.
    ///
    /// # Errors
    /// [`ActionError`]: access, a page token of another listing, or from before the policy was changed,
    /// the database. After a database error the outcome may be unknown; a retry is safe.
    pub async fn enforce_policy(
        &self,
        caller: &Caller,
        organization_id: Option<OrganizationId>,
        page_token: &str,
        on_change: OnChange<'_>,
    ) -> Result<(BreachPage, OffsetDateTime), ActionError> {
        caller.require(Permission::Root)?;
        let organization_id = caller.organization(organization_id)?;
        let store = self.admission.writes(caller).await?;
        let (done, policy) = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let policy = transaction.hold_policy(&organization_id).await?;
                let bound = bound(Walk::Enforce, &organization_id, &policy);
                let from = self.position(page_token, &bound)?;
                // With the caller as it arrived, only to learn which locks are needed: those of users come
                // before its own.
                let seen = transaction.find_breaches(&organization_id, &policy, from).await?;
                let ids = transaction.lock_owners(&policy, &organization_id, &seen).await?;
                let locked = transaction.lock_caller(caller, None).await?;
                transaction.lock_tokens(&ids).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                caller.require(Permission::Root)?;
                // Examined again, now that none of it changes.
                let found = transaction.examine(&organization_id, &ids, &policy, (now, seen.next)).await?;
                on_change(&found.breaches.iter().map(|breach| breach.token.id).collect::<Vec<_>>());
                for breach in &found.breaches {
                    transaction.fix(breach, &caller.principal, now).await?;
                }
                transaction.commit().await?;
                Ok((found, policy))
            })
            .await?;
        // In a separate statement, so later than the commit that has returned.
        let effective_time = store.effective_time().await?;
        let bound = bound(Walk::Enforce, &organization_id, &policy);
        let next_page_token = done.next.map(|position| position.page_token(&bound, &self.keyring.peek()));
        Ok((BreachPage { breaches: done.breaches, next_page_token }, effective_time))
    }

    fn position(&self, page_token: &str, bound: &[u8]) -> Result<Option<Position>, ActionError> {
        if page_token.is_empty() {
            return Ok(None);
        }
        Ok(Some(Position::parse_page_token(page_token, bound, &self.keyring.peek())?))
    }
}

/// Returns what a page token is bound to: the action, the organization, the policy.
fn bound(walk: Walk, organization_id: &OrganizationId, policy: &Policy) -> Vec<u8> {
    // No filters of a token listing start with these bytes.
    let mut bytes = match walk {
        Walk::Check => b"check2".to_vec(),
        Walk::Enforce => b"enforce1".to_vec(),
    };
    for duration in [policy.longest_lifetime, policy.longest_grace] {
        bytes.extend_from_slice(&duration.map_or(-1, Duration::whole_seconds).to_be_bytes());
    }
    bytes.extend_from_slice(&policy.most_active_tokens.unwrap_or(0).to_be_bytes());
    bytes.push(u8::from(policy.expiration_required));
    for text in
        std::iter::once(organization_id.as_str()).chain(policy.allowed_scopes.iter().map(Scope::as_str))
    {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}
