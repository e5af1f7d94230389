//! What the calls take and give, in the judge's types. Plain data; turned into messages and back by the client.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use time::OffsetDateTime;
use tokend_core::domain::{Networks, OrganizationId, Scopes, Token, TokenState};
use tokend_core::secret::TokenId;
use uuid::Uuid;

use crate::ambient;
use crate::proto;
use crate::proto::create_token_request::Expiration as Choice;
use crate::token::{duration, texts, timestamp};

/// When a token ends. A choice that is made each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiration {
    /// It is refused from this moment on.
    At(OffsetDateTime),
    /// It is accepted for so long.
    After(Duration),
    /// It never ends.
    Never,
}

/// A token to be made. The client gives each a request id of its own, so that a lost answer is asked for again
/// and no second token made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewToken {
    /// The tenant; `None`: the caller's own.
    pub organization_id: Option<String>,
    /// Who it belongs to.
    pub user_id: String,
    /// What people call it.
    pub name: String,
    /// When it ends.
    pub expiration: Expiration,
    /// What it may do.
    pub scopes: Scopes,
    /// Notes on it.
    pub labels: BTreeMap<String, String>,
    /// Where it may be used from; empty: anywhere.
    pub allowed_cidrs: Networks,
}

impl NewToken {
    /// Begins with what every token has.
    #[must_use]
    pub fn new(user_id: impl Into<String>, name: impl Into<String>, expiration: Expiration) -> Self {
        Self {
            organization_id: None,
            user_id: user_id.into(),
            name: name.into(),
            expiration,
            scopes: Scopes::default(),
            labels: BTreeMap::new(),
            allowed_cidrs: Networks::default(),
        }
    }
}

/// A token that was made, and its secret, which no other call returns.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// What proves it.
    pub secret: SecretString,
}

/// Which tokens to list; the default is all that the caller reaches, newest first.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Listing {
    /// Of this organization alone.
    pub organization_id: Option<OrganizationId>,
    /// Of this user alone.
    pub user_id: Option<String>,
    /// In one of these states; empty: in any.
    pub states: Vec<TokenState>,
    /// Created then or later.
    pub created_after: Option<OffsetDateTime>,
    /// Created before.
    pub created_before: Option<OffsetDateTime>,
    /// That expire before.
    pub expires_before: Option<OffsetDateTime>,
    /// Not used since.
    pub unused_since: Option<OffsetDateTime>,
    /// With this in their name.
    pub name_contains: Option<String>,
    /// Soonest to expire first, instead of newest first.
    pub by_expire_time: bool,
    /// How many a page holds at most; 0: as many as tokend likes.
    pub page_size: u16,
}

/// What to change of a token; `None` stays as it is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TokenUpdate {
    /// What people call it.
    pub name: Option<String>,
    /// Notes on it, all of them.
    pub labels: Option<BTreeMap<String, String>>,
    /// What it may do.
    pub scopes: Option<Scopes>,
    /// Where it may be used from.
    pub allowed_cidrs: Option<Networks>,
    /// When it ends.
    pub expiration: Option<Expiration>,
}

/// How to put a new token in the place of another.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Rotation {
    /// When the new one ends; `None`: as the old one.
    pub expiration: Option<Expiration>,
    /// How long the old one is still good for.
    pub grace_period: Duration,
}

/// Which token to revoke.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RevocationTarget {
    /// The one with this id.
    Id(TokenId),
    /// The one that this secret proves: whoever finds it may revoke it.
    Secret(SecretString),
}

/// What was changed, and when the change holds for every replica. Clients that judge by themselves may add the
/// staleness that they declare.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Changed<T> {
    /// What is told of it.
    pub changed: T,
    /// From when on every replica takes account of it, by the database's clock.
    pub effective_time: OffsetDateTime,
}

/// What is told of a revoked token: all of it to a caller that could Get it, else this.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RevokedToken {
    /// Its id.
    pub id: TokenId,
    /// When it was revoked first.
    pub revoke_time: Option<OffsetDateTime>,
    /// All that is known of it, to whoever may see it.
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
        }
    }
}

impl Listing {
    /// Makes the request for the page that `after` leads to.
    pub(crate) fn request(&self, after: Option<&str>) -> proto::ListTokensRequest {
        let state = |state: &TokenState| match state {
            TokenState::Active => proto::TokenState::Active.into(),
            TokenState::Expired => proto::TokenState::Expired.into(),
            TokenState::Revoked => proto::TokenState::Revoked.into(),
            TokenState::Disabled => proto::TokenState::Disabled.into(),
            // There is none; tokend would refuse it.
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
            name_contains: self.name_contains.clone().unwrap_or_default(),
            order_by: if self.by_expire_time { "expire_time".to_owned() } else { String::new() },
            page_size: self.page_size.into(),
            page_token: after.unwrap_or_default().to_owned(),
        }
    }
}

impl TokenUpdate {
    /// Makes the request that changes the token with this id.
    pub(crate) fn request(self, id: TokenId) -> proto::UpdateTokenRequest {
        use proto::update_token_request::Expiration as Choice;
        let set = [
            ("name", self.name.is_some()),
            ("labels", self.labels.is_some()),
            ("scopes", self.scopes.is_some()),
            ("allowed_cidrs", self.allowed_cidrs.is_some()),
            ("expiration", self.expiration.is_some()),
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
            force: false,
        }
    }
}

impl Rotation {
    /// Makes the request that rotates the token with this id.
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
            force: false,
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

/// Makes what a call is known by when it is repeated.
fn request_id() -> String {
    uuid::Builder::from_random_bytes(ambient::random())
        .into_uuid()
        .hyphenated()
        .encode_lower(&mut Uuid::encode_buffer())
        .to_owned()
}
