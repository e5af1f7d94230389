//! The token, its fields as the contract names them, and its state. Called by every action and every
//! response that contains a token. Knows no clock: the time at which a state is judged is an argument.

use std::borrow::Cow;
use std::net::IpAddr;

use time::OffsetDateTime;

use super::fields::{Labels, OrganizationId, RevokeReason, TokenName, UserId};
use super::grant::Grant;
use super::networks::Networks;
use super::owner::{Owner, OwnerKind};
use super::plan::PlanName;
use super::principal::Principal;
use super::scope::Scopes;
use crate::secret::TokenId;

/// A token's record: everything except its verifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Identifies the token; part of its secret, but not secret itself.
    pub id: TokenId,
    /// The tenant of the token.
    pub organization_id: OrganizationId,
    /// The user that it belongs to.
    pub user_id: UserId,
    /// Its display name.
    pub name: TokenName,
    /// The scopes that it grants.
    pub scopes: Scopes,
    /// Labels from its creator.
    pub labels: Labels,
    /// The networks from which it may be used.
    pub allowed_cidrs: Networks,
    /// When it was created, by the database's clock.
    pub create_time: OffsetDateTime,
    /// The principal that created it.
    pub created_by: Principal,
    /// The time from which it is expired; `None`: never.
    pub expire_time: Option<OffsetDateTime>,
    /// When it was last used, with the precision of the recording interval; `None` if it was not
    /// requested, and before the first recorded use.
    pub last_use_time: Option<OffsetDateTime>,
    /// When it was first revoked.
    pub revoke_time: Option<OffsetDateTime>,
    /// The reason of the first revocation.
    pub revoke_reason: Option<RevokeReason>,
    /// The token that it replaced; `None` if it was created.
    pub rotated_from: Option<TokenId>,
    /// When it was disabled by itself; `None` if it was not.
    pub disable_time: Option<OffsetDateTime>,
    /// The token that replaced it; `None` if it was not rotated.
    pub superseded_by: Option<TokenId>,
    /// What the tokens that it issues may have at most; `None`: all that its scopes allow.
    pub grant: Option<Grant>,
    /// When its user was disabled; `None` if the user is not disabled.
    pub user_disable_time: Option<OffsetDateTime>,
    /// The plan whose limits it has; `None`: it has none.
    pub plan: Option<PlanName>,
    /// The first token of its family: what the first rotation replaced. `None`: the token itself.
    pub family_id: Option<TokenId>,
    /// What the user id names.
    pub owner_kind: OwnerKind,
    /// When and why it was refused last, though its secret was right; `None` if it was not requested, and before the
    /// first recorded refusal.
    pub last_refusal: Option<Box<LastRefusal>>,
}

/// The most missing scopes that a refusal names.
pub const MAX_MISSING_SCOPES: usize = 4;

/// A verdict other than VALID on a token whose secret was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRefusal {
    /// When it was given, by the database's clock.
    pub time: OffsetDateTime,
    /// The number of the verdict in the contract.
    pub verdict: u8,
    /// The first required scopes that the token lacked.
    pub missing_scopes: Vec<String>,
    /// The address that presented the secret; `None`: it is not known.
    pub client_ip: Option<IpAddr>,
}

/// A field of a token, as the contract has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number in the contract.
    pub number: u32,
    /// Its name in the contract.
    pub name: &'static str,
    /// Its value.
    pub value: Value<'a>,
}

/// The value of a field. An empty one is one that is not set, as in the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// Scopes: a list of texts.
    Scopes(&'a Scopes),
    /// Networks: a list of texts.
    Networks(&'a Networks),
    /// Labels: a map of texts.
    Labels(&'a Labels),
    /// A time.
    Time(Option<OffsetDateTime>),
    /// A grant.
    Grant(Option<&'a Grant>),
    /// What owns it: an enum's number.
    OwnerKind(OwnerKind),
    /// A refusal.
    Refusal(Option<&'a LastRefusal>),
}

/// Whether a token can be used, at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// It can be used.
    Active,
    /// It has expired.
    Expired,
    /// It was revoked; this also remains after its expiration.
    Revoked,
    /// It cannot be used until it is enabled again, and is neither revoked nor expired.
    Disabled,
}

impl Token {
    /// Creates a token without scopes, labels and networks that never expires, and to which nothing has
    /// happened yet.
    #[must_use]
    pub fn new(
        id: TokenId,
        (organization_id, user_id): (OrganizationId, UserId),
        name: TokenName,
        (create_time, created_by): (OffsetDateTime, Principal),
    ) -> Self {
        Self {
            id,
            organization_id,
            user_id,
            name,
            scopes: Scopes::default(),
            labels: Labels::default(),
            allowed_cidrs: Networks::default(),
            create_time,
            created_by,
            expire_time: None,
            last_use_time: None,
            revoke_time: None,
            revoke_reason: None,
            rotated_from: None,
            disable_time: None,
            superseded_by: None,
            grant: None,
            user_disable_time: None,
            plan: None,
            family_id: None,
            owner_kind: OwnerKind::default(),
            last_refusal: None,
        }
    }

    /// Returns the id of its family: that of the family's first token, which no rotation changes.
    #[must_use]
    pub fn family(&self) -> TokenId {
        self.family_id.unwrap_or(self.id)
    }

    /// Returns its owner.
    #[must_use]
    pub fn owner(&self) -> Owner<'_> {
        Owner { organization_id: &self.organization_id, user_id: &self.user_id, kind: self.owner_kind }
    }

    /// Returns since when it is disabled, by itself or with its user; `None` if it is not.
    #[must_use]
    pub fn disabled_since(&self) -> Option<OffsetDateTime> {
        match (self.disable_time, self.user_disable_time) {
            (Some(own), Some(of_user)) => Some(own.min(of_user)),
            (own, of_user) => own.or(of_user),
        }
    }

    /// Returns every field except the state, which depends on the time. By ascending number, but the owner's
    /// kind is last: it is read from the end of a packed token.
    #[must_use]
    pub fn fields(&self) -> [Field<'_>; 22] {
        use Value::{Text, Time};
        // Without `..`, so that this does not compile while a field is missing below.
        let Self {
            id,
            organization_id,
            user_id,
            name,
            scopes,
            labels,
            allowed_cidrs,
            create_time,
            created_by,
            expire_time,
            last_use_time,
            revoke_time,
            revoke_reason,
            rotated_from,
            disable_time,
            superseded_by,
            grant,
            user_disable_time,
            plan,
            family_id,
            owner_kind,
            last_refusal,
        } = self;
        let field = |number, name, value| Field { number, name, value };
        let id_of =
            |other: &Option<TokenId>| Text(other.map_or_else(String::new, |id| id.to_string()).into());
        let reason = revoke_reason.as_ref().map_or("", RevokeReason::as_str);
        [
            field(1, "id", Text(id.to_string().into())),
            field(2, "organization_id", Text(organization_id.as_str().into())),
            field(3, "user_id", Text(user_id.as_str().into())),
            field(4, "name", Text(name.as_str().into())),
            field(5, "scopes", Value::Scopes(scopes)),
            field(6, "labels", Value::Labels(labels)),
            field(7, "allowed_cidrs", Value::Networks(allowed_cidrs)),
            field(9, "create_time", Time(Some(*create_time))),
            field(10, "created_by", Text(created_by.to_string().into())),
            field(11, "expire_time", Time(*expire_time)),
            field(12, "last_use_time", Time(*last_use_time)),
            field(13, "revoke_time", Time(*revoke_time)),
            field(14, "revoke_reason", Text(reason.into())),
            field(15, "rotated_from", id_of(rotated_from)),
            field(16, "disable_time", Time(*disable_time)),
            field(17, "superseded_by", id_of(superseded_by)),
            field(18, "grant", Value::Grant(grant.as_ref())),
            field(20, "user_disable_time", Time(*user_disable_time)),
            field(22, "plan", Text(plan.as_ref().map_or("", PlanName::as_str).into())),
            field(23, "family_id", id_of(family_id)),
            field(21, "owner_kind", Value::OwnerKind(*owner_kind)),
            field(24, "last_refusal", Value::Refusal(last_refusal.as_deref())),
        ]
    }

    /// Returns the token's state at `now`. It is expired from `expire_time` on, inclusive.
    #[must_use]
    pub fn state(&self, now: OffsetDateTime) -> TokenState {
        TokenState::at(now, self.revoke_time.is_some(), self.disabled_since().is_some(), self.expire_time)
    }
}

impl TokenState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Active, Self::Expired, Self::Revoked, Self::Disabled];

    /// Returns the state at `now` of a token with this expiration, expired from it on, inclusive.
    pub(super) fn at(
        now: OffsetDateTime,
        revoked: bool,
        disabled: bool,
        expire_time: Option<OffsetDateTime>,
    ) -> Self {
        if revoked {
            Self::Revoked
        } else if expire_time.is_some_and(|end| now >= end) {
            Self::Expired
        } else if disabled {
            Self::Disabled
        } else {
            Self::Active
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::token;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    #[test]
    fn the_most_final_state_wins() {
        let mut token = token(&[]);
        assert_eq!(token.state(NOW), TokenState::Active);
        token.user_disable_time = Some(NOW);
        assert_eq!(token.state(NOW), TokenState::Disabled);
        token.disable_time = Some(NOW);
        assert_eq!(token.state(NOW), TokenState::Disabled);
        token.user_disable_time = None;
        assert_eq!(token.state(NOW), TokenState::Disabled);
        token.expire_time = Some(NOW);
        assert_eq!(token.state(NOW), TokenState::Expired);
        token.revoke_time = Some(NOW);
        assert_eq!(token.state(NOW), TokenState::Revoked);
    }
}
