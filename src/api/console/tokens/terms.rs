//! What the organization's policy lets a form offer, and how many tokens the user has of those that it allows. Read
//! before the form is shown; the creation checks it again. Called by the forms for a new token, for a rotation and
//! for a change.

use time::{Duration, OffsetDateTime};

use super::expiration::ExpirationOptions;
use crate::api::console::failure::Failure;
use crate::api::console::interface::Console;
use crate::api::console::session::visit::Visit;
use crate::domain::policy::{MAX_GRACE, Policy};
use crate::domain::{AccessError, Caller, OrganizationId, OwnerKind, ReservedScope, Scope, Scopes, UserId};
use crate::tokens::ActionError;

/// The policy, and the user's tokens.
#[derive(Debug)]
pub(super) struct Terms {
    policy: Policy,
    /// How many of the user's tokens count.
    count: u32,
    may_be_root: bool,
    /// The scopes that cover all that the caller may issue; `None`: any.
    given: Option<Scopes>,
}

/// What is said of the number of a user's tokens.
pub(super) struct Count {
    pub(super) text: String,
    /// Whether there may be no more.
    pub(super) is_full: bool,
}

impl Terms {
    /// Reads the terms of a user in an organization, as they were typed. What cannot be parsed yet, or is out of
    /// reach, counts as not typed.
    pub(super) async fn read(
        console: &Console,
        visit: &Visit,
        (organization, user, kind): (&str, &str, OwnerKind),
    ) -> Result<Self, Failure> {
        let caller = visit.caller();
        let organization = OrganizationId::parse(organization).ok().filter(|_| !organization.is_empty());
        let user = UserId::parse(user).ok();
        let user = user.as_ref().map(|user| (user, kind));
        let actions = &console.integrations.context.actions;
        let read = match actions.creation_terms(caller, organization, user).await {
            Err(ActionError::Access(AccessError::ForeignOrganization)) => {
                actions.creation_terms(caller, None, user).await
            }
            read => read,
        };
        let (policy, count) = read?;
        let given = caller.offered_scopes().cloned();
        Ok(Self { policy, count, may_be_root: caller.offers(ReservedScope::Root), given })
    }

    /// Returns these terms for a token that no policy binds.
    pub(super) fn unbound(self) -> Self {
        Self { policy: Policy::default(), ..self }
    }

    /// Returns what is offered for a new token.
    pub(super) fn expiration_options(&self, now: OffsetDateTime) -> ExpirationOptions {
        ExpirationOptions::new(&self.policy, (now, now), self.may_be_root)
    }

    /// Returns what is offered for a token that exists.
    pub(super) fn expiration_options_of(
        &self,
        created: OffsetDateTime,
        now: OffsetDateTime,
    ) -> ExpirationOptions {
        ExpirationOptions::new(&self.policy, (created, now), false)
    }

    /// Returns the longest time for which a rotated token may still be accepted.
    pub(super) fn longest_grace(&self) -> Duration {
        self.policy.longest_grace.unwrap_or(MAX_GRACE)
    }

    /// Returns the scopes that the policy and the caller's own token allow, without the reserved ones; empty: any, or
    /// none if the caller may not issue any.
    pub(super) fn scopes(&self) -> Vec<String> {
        let allowed = &self.policy.allowed_scopes;
        let of_policy =
            allowed.iter().filter(|scope| self.given.as_ref().is_none_or(|given| given.cover(scope)));
        let of_caller = self.given.iter().flat_map(Scopes::iter);
        let of_caller = of_caller.filter(|scope| allowed.is_empty() || allowed.cover(scope));
        let mut scopes: Vec<String> = Vec::new();
        for scope in of_policy.chain(of_caller).map(Scope::as_str).filter(|scope| !is_reserved(scope)) {
            if !scopes.iter().any(|found| found == scope) {
                scopes.push(scope.to_owned());
            }
        }
        scopes
    }

    /// Returns whether scopes can be typed that are not in the list.
    pub(super) fn has_patterns(&self) -> bool {
        let scopes = self.scopes();
        self.may_be_root
            || self.policy.allowed_scopes.is_empty() && self.given.is_none()
            || scopes.iter().any(|scope| scope.ends_with('*'))
    }

    /// Returns whether a reserved scope can be issued: the caller has it, and the policy allows it.
    pub(super) fn offers(&self, caller: &Caller, scope: ReservedScope) -> bool {
        let mut allowed = self.policy.allowed_scopes.iter().peekable();
        let any = scope == ReservedScope::Root || allowed.peek().is_none();
        caller.offers_with_grant(scope) && (any || allowed.any(|allowed| allowed.as_str() == scope.word()))
    }

    /// Says which of the user's tokens the new one is; `None` without a limit or a user.
    pub(super) fn count_of(&self, user: &str) -> Option<Count> {
        let most = self.policy.most_active_tokens.filter(|_| !user.is_empty())?;
        let is_full = self.count >= most;
        let text = if is_full {
            format!(
                "{user} has {} of the {most} tokens that the organization's policy allows. Revoke one first.",
                self.count
            )
        } else {
            format!("This is {user}'s {} of {most} tokens.", ordinal(self.count.saturating_add(1)))
        };
        Some(Count { text, is_full })
    }
}

/// Returns whether a scope is one of those that give access to tokend itself, or looks like one.
pub(super) fn is_reserved(scope: &str) -> bool {
    scope == "tokend" || scope.starts_with("tokend:")
}

fn ordinal(number: u32) -> String {
    let expiration_choice = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{expiration_choice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_as_people_do() {
        let said = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal);
        assert_eq!(said, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]);
    }

    #[test]
    fn a_user_at_the_limit_is_told_before_the_form_is_sent() {
        let policy = Policy { most_active_tokens: Some(10), ..Policy::default() };
        let terms = |count| Terms { policy: policy.clone(), count, may_be_root: false, given: None };
        assert_eq!(terms(2).count_of("Ada").unwrap().text, "This is Ada's 3rd of 10 tokens.");
        assert!(terms(10).count_of("Ada").unwrap().is_full && terms(2).count_of("").is_none());
        let none = Terms { policy: Policy::default(), count: 0, may_be_root: false, given: None };
        assert!(none.count_of("Ada").is_none());
    }
}
