//! The arguments and results of the calls, in `tokend-core`'s types. Plain data; the client
//! converts them to messages and back.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use tokend_core::domain::{Grant, Networks, OrganizationId, OwnerKind, PlanName, Scopes, Token, TokenState};
use tokend_core::secret::TokenId;
use uuid::Uuid;

use crate::proto;
use crate::proto::create_token_request::Expiration as Choice;
use crate::random;
use crate::token::{duration, texts, timestamp};

/// A token's expiration, which must be chosen each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiration {
    /// Refused from this time on.
    At(OffsetDateTime),
    /// Accepted for this long.
    After(Duration),
    /// Never expires.
    Never,
}

/// A token to create. The client gives each a request id, so that a retry after a lost response
/// creates no second token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewToken {
    /// The tenant; `None`: the caller's own.
    pub organization_id: Option<String>,
    /// The user that it belongs to.
    pub user_id: String,
    /// What the user id names: a person unless it says otherwise.
    pub owner_kind: OwnerKind,
    /// Its name, for people.
    pub name: String,
    /// Its expiration.
    pub expiration: Expiration,
    /// Its scopes.
    pub scopes: Scopes,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The networks that it may be used from; empty: any.
    pub allowed_cidrs: Networks,
    /// What the tokens that it issues may have at most; `None`: all that its scopes allow.
    pub grant: Option<Grant>,
    /// The plan whose limits it gets; `None`: what tokend chooses, which is none for most callers.
    pub plan: Option<PlanName>,
}

impl NewToken {
    /// Starts with the fields that every token has.
    #[must_use]
    pub fn new(user_id: impl Into<String>, name: impl Into<String>, expiration: Expiration) -> Self {
        Self {
            organization_id: None,
            user_id: user_id.into(),
            owner_kind: OwnerKind::User,
            name: name.into(),
            expiration,
            scopes: Scopes::default(),
            labels: BTreeMap::new(),
            allowed_cidrs: Networks::default(),
            grant: None,
            plan: None,
        }
    }
}

/// A new token, and its secret, which no other call returns.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// The secret that proves it.
    pub secret: SecretString,
}

/// A link that signs in to the console.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsoleLink {
    /// The link, with the code that signs in as the caller.
    pub url: SecretString,
    /// When it can no longer be used.
    pub expire_time: OffsetDateTime,
}

/// Selects tokens; the default is all that the caller can reach, newest first.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Listing {
    /// Only of this organization.
    pub organization_id: Option<OrganizationId>,
    /// Only of this user.
    pub user_id: Option<String>,
    /// Only of owners of this kind.
    pub owner_kind: Option<OwnerKind>,
    /// In one of these states; empty: any.
    pub states: Vec<TokenState>,
    /// Created at this time or later.
    pub created_after: Option<OffsetDateTime>,
    /// Created before this time.
    pub created_before: Option<OffsetDateTime>,
    /// Expiring before this time.
    pub expires_before: Option<OffsetDateTime>,
    /// Not used since this time.
    pub unused_since: Option<OffsetDateTime>,
    /// Refused at this time or later, although the secret was right.
    pub refused_after: Option<OffsetDateTime>,
    /// Never used.
    pub never_used: bool,
    /// With this text in their name.
    pub name_contains: Option<String>,
    /// Ordered by expiration, soonest first, instead of newest first.
    pub by_expire_time: bool,
    /// The most tokens in a page; 0: tokend's default.
    pub page_size: u16,
}

/// The changes of a token; `None` leaves a field unchanged.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TokenUpdate {
    /// Its name, for people.
    pub name: Option<String>,
    /// Its labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its scopes.
    pub scopes: Option<Scopes>,
    /// The networks that it may be used from.
    pub allowed_cidrs: Option<Networks>,
    /// Its expiration.
    pub expiration: Option<Expiration>,
    /// What the tokens that it issues may have at most; `Some(None)` removes the limit.
    pub grant: Option<Option<Grant>>,
    /// The plan whose limits it has; `Some(None)`: none.
    pub plan: Option<Option<PlanName>>,
    /// Whether to change it also where that leaves no active root token.
    pub force: bool,
}

/// How to replace a token by a new one.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Rotation {
    /// The new token's expiration; `None`: the old one's.
    pub expiration: Option<Expiration>,
    /// How long the old token is still accepted.
    pub grace_period: Duration,
    /// Whether to rotate it also where that leaves no root token that is active for another 24 hours.
    pub force: bool,
}

/// The token to revoke.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RevocationTarget {
    /// The token with this id.
    Id(TokenId),
    /// The token that this secret proves: a caller that has it may revoke the token.
    Secret(SecretString),
}

/// How to revoke or disable tokens. A reason alone converts into it: `"lost"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndOptions {
    /// Why, for people who read the list or the audit log: at most 500 bytes. Empty: not told.
    pub reason: String,
    /// Whether to do so also where that leaves no active root token.
    pub force: bool,
}

impl EndOptions {
    /// Revokes or disables also where that leaves no active root token.
    #[must_use]
    pub fn force(self) -> Self {
        Self { force: true, ..self }
    }
}

impl From<String> for EndOptions {
    fn from(reason: String) -> Self {
        Self { reason, force: false }
    }
}

impl From<&str> for EndOptions {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// A change, and when every replica applies it. A local verifier may take up to its declared
/// staleness longer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Changed<T> {
    /// The result.
    pub changed: T,
    /// The time from which every replica applies it, by the database's clock.
    pub effective_time: OffsetDateTime,
}

/// A revoked token: complete for a caller that could Get it, otherwise only id and time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RevokedToken {
    /// Its id.
    pub id: TokenId,
    /// When it was first revoked.
    pub revoke_time: Option<OffsetDateTime>,
    /// The complete token, if the caller may see it.
    pub token: Option<Token>,
}

impl From<Expiration> for Choice {
    fn from(expiration: Expiration) -> Self {
        match expiration {
            Expiration::At(time) => Self::ExpireTime(timestamp(time)),
            Expiration::After(ttl) => Self::Ttl(duration(ttl)),
            Expiration::Never => Self::NoExpiration(true),
        }
    }
}

impl From<NewToken> for proto::CreateTokenRequest {
    fn from(new: NewToken) -> Self {
        Self {
            organization_id: new.organization_id.unwrap_or_default(),
            user_id: new.user_id,
            name: new.name,
            expiration: Some(new.expiration.into()),
            scopes: texts(&new.scopes),
            labels: new.labels.into_iter().collect(),
            allowed_cidrs: cidrs(&new.allowed_cidrs),
            request_id: request_id(),
            grant: new.grant.as_ref().map(Into::into),
            owner_kind: proto::OwnerKind::from(new.owner_kind).into(),
            plan: plan_text(new.plan),
        }
    }
}

fn plan_text(plan: Option<PlanName>) -> String {
    plan.map_or_else(String::new, |plan| plan.as_str().to_owned())
}

impl Listing {
    /// Builds the request for the page after `after`.
    pub(crate) fn request(&self, after: Option<&str>) -> proto::ListTokensRequest {
        let state = |state: &TokenState| match state {
            TokenState::Active => proto::TokenState::Active.into(),
            TokenState::Expired => proto::TokenState::Expired.into(),
            TokenState::Revoked => proto::TokenState::Revoked.into(),
            TokenState::Disabled => proto::TokenState::Disabled.into(),
            // There is no other; tokend would refuse it.
            _ => proto::TokenState::Unspecified.into(),
        };
        let organization_id = self.organization_id.as_ref().map(|id| id.as_str().to_owned());
        proto::ListTokensRequest {
            organization_id: organization_id.unwrap_or_default(),
            user_id: self.user_id.clone().unwrap_or_default(),
            states: self.states.iter().map(state).collect(),
            created_after: self.created_after.map(timestamp),
            created_before: self.created_before.map(timestamp),
            expires_before: self.expires_before.map(timestamp),
            unused_since: self.unused_since.map(timestamp),
            refused_after: self.refused_after.map(timestamp),
            never_used: self.never_used,
            name_contains: self.name_contains.clone().unwrap_or_default(),
            order_by: if self.by_expire_time { "expire_time".to_owned() } else { String::new() },
            page_size: self.page_size.into(),
            page_token: after.unwrap_or_default().to_owned(),
            owner_kind: self.owner_kind.map_or(0, |kind| proto::OwnerKind::from(kind).into()),
        }
    }
}

impl TokenUpdate {
    /// Builds the request that changes the token with this id.
    pub(crate) fn request(self, id: TokenId) -> proto::UpdateTokenRequest {
        use proto::update_token_request::Expiration as Choice;
        let set = [
            ("name", self.name.is_some()),
            ("labels", self.labels.is_some()),
            ("scopes", self.scopes.is_some()),
            ("allowed_cidrs", self.allowed_cidrs.is_some()),
            ("expiration", self.expiration.is_some()),
            ("grant", self.grant.is_some()),
            ("plan", self.plan.is_some()),
        ];
        let paths = set.iter().filter(|(_, set)| *set).map(|(path, _)| (*path).to_owned()).collect();
        proto::UpdateTokenRequest {
            token_id: id.to_string(),
            name: self.name.unwrap_or_default(),
            labels: self.labels.unwrap_or_default().into_iter().collect(),
            scopes: self.scopes.as_ref().map(texts).unwrap_or_default(),
            expiration: self.expiration.map(|expiration| match expiration {
                Expiration::At(time) => Choice::ExpireTime(timestamp(time)),
                Expiration::After(ttl) => Choice::Ttl(duration(ttl)),
                Expiration::Never => Choice::NoExpiration(true),
            }),
            allowed_cidrs: self.allowed_cidrs.as_ref().map(cidrs).unwrap_or_default(),
            update_mask: Some(prost_types::FieldMask { paths }),
            force: self.force,
            grant: self.grant.flatten().as_ref().map(Into::into),
            plan: plan_text(self.plan.flatten()),
        }
    }
}

impl Rotation {
    /// Builds the request that rotates the token with this id.
    pub(crate) fn request(self, id: TokenId) -> proto::RotateTokenRequest {
        use proto::rotate_token_request::Expiration as Choice;
        proto::RotateTokenRequest {
            token_id: id.to_string(),
            expiration: self.expiration.map(|expiration| match expiration {
                Expiration::At(time) => Choice::ExpireTime(timestamp(time)),
                Expiration::After(ttl) => Choice::Ttl(duration(ttl)),
                Expiration::Never => Choice::NoExpiration(true),
            }),
            grace_period: Some(duration(self.grace_period)),
            request_id: request_id(),
            force: self.force,
        }
    }
}

impl From<RevocationTarget> for proto::revoke_token_request::Target {
    fn from(target: RevocationTarget) -> Self {
        match target {
            RevocationTarget::Id(id) => Self::TokenId(id.to_string()),
            RevocationTarget::Secret(secret) => Self::Secret(secret.expose_secret().to_owned()),
        }
    }
}

fn cidrs(networks: &Networks) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

/// Returns a new request id, by which a repeated call is recognized.
fn request_id() -> String {
    uuid::Builder::from_random_bytes(random::random())
        .into_uuid()
        .hyphenated()
        .encode_lower(&mut Uuid::encode_buffer())
        .to_owned()
}
