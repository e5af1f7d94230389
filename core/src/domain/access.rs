//! The caller, and what it may do. Called by the actions and by the engine when it authenticates.
//! Permissions come only from the credential: nothing here uses the claims of a request. Knows no
//! headers and no status codes.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use super::account::Account;
use super::fields::{OrganizationId, UserId};
use super::networks::Networks;
use super::owner::OwnerKind;
use super::principal::Principal;
use super::reach::Reach;
use super::record::Record;
use super::scope::{ReservedScope, ReservedScopes};
use super::token::{Token, TokenState};
use crate::secret::TokenId;

mod bearer;
mod bounds;
mod delegating;
pub mod denial;
mod issuing;
mod plans;
mod portal;
mod refusal;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod widening;
#[cfg(test)]
mod widening_logins;

pub use bearer::bearer;
pub use denial::Denial;
pub use refusal::{AccessError, Bound, CredentialError};

use bounds::Holder;

/// The kinds of calls, by the permission they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Verify secrets.
    Verify,
    /// Watch changes of tokens.
    Watch,
    /// Read tokens, of the organization or of the caller's own user.
    ReadOwn,
    /// Read all that is stored of an organization.
    ReadAll,
    /// Create and change tokens, of the organization or of the caller's own user.
    WriteOwn,
    /// Change all tokens of a user at once.
    WriteAll,
    /// Set an organization's policy.
    Root,
}

/// An authenticated caller with its permissions.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The caller's identity.
    pub principal: Principal,
    account: Account,
    organization_id: OrganizationId,
    reserved: ReservedScopes,
    expire_time: Option<OffsetDateTime>,
    networks: Networks,
    peer: Option<IpAddr>,
    /// `None` if neither `tokend:self` nor a grant limits what it does.
    holder: Option<Arc<Holder>>,
    /// Who vouches for the person of a portal session, and must be allowed to do what that person does.
    vouching: Option<Arc<Self>>,
}

/// The tokens that a permission of a caller extends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent<'a> {
    /// All.
    Any,
    /// Those of an organization.
    Organization(&'a OrganizationId),
    /// Those of a user in an organization.
    User(&'a OrganizationId, &'a UserId, OwnerKind),
}

impl Extent<'_> {
    /// Returns whether it includes a token.
    #[must_use]
    pub fn includes(&self, token: &Token) -> bool {
        match self {
            Self::Any => true,
            Self::Organization(own) => token.organization_id == **own,
            Self::User(own, user, kind) => {
                token.organization_id == **own && token.user_id == **user && token.owner_kind == *kind
            }
        }
    }
}

impl Caller {
    /// Creates a caller whose credential is not a token.
    #[must_use]
    pub fn new(
        principal: Principal,
        organization_id: OrganizationId,
        reserved: ReservedScopes,
        expire_time: Option<OffsetDateTime>,
    ) -> Self {
        let account = Account::of_principal(&principal);
        let (networks, peer, holder, vouching) = (Networks::default(), None, None, None);
        Self { principal, account, organization_id, reserved, expire_time, networks, peer, holder, vouching }
    }

    /// Creates the caller from a token whose secret it presented from `peer`, judged at `now`.
    ///
    /// # Errors
    /// The token is revoked, expired or disabled, or may not be used from `peer`.
    pub fn from_token(
        token: &Token,
        peer: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<Self, CredentialError> {
        usable(token.state(now), token.allowed_cidrs.admit(peer))?;
        Ok(Self::of_token(token, peer))
    }

    fn of_token(token: &Token, peer: Option<IpAddr>) -> Self {
        Self {
            principal: Principal::Token(token.id),
            account: Account::of_user(
                token.organization_id.as_str().as_bytes(),
                token.user_id.as_str().as_bytes(),
            ),
            organization_id: token.organization_id.clone(),
            reserved: token.scopes.reserved(),
            expire_time: token.expire_time,
            networks: token.allowed_cidrs.clone(),
            peer,
            holder: Holder::of_token(token).map(Arc::new),
            vouching: None,
        }
    }

    /// Creates the caller from the record of the token with this id, as [`Self::from_token`] does.
    ///
    /// # Errors
    /// Those of [`Self::from_token`], or a field of the record cannot be read.
    pub fn from_record(
        id: TokenId,
        record: &Record,
        peer: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<Self, CredentialError> {
        Self::check_record(record, peer, now)?;
        Self::of_record(id, record, peer)
    }

    fn of_record(id: TokenId, record: &Record, peer: Option<IpAddr>) -> Result<Self, CredentialError> {
        let packed = record.packed();
        let organization_id = std::str::from_utf8(packed.organization_id())
            .ok()
            .and_then(|text| OrganizationId::parse(text).ok())
            .ok_or(CredentialError::Invalid)?;
        Ok(Self {
            principal: Principal::Token(id),
            account: Account::of_user(packed.organization_id(), packed.user_id()),
            organization_id,
            reserved: record.reserved(),
            expire_time: record.expire_time(),
            networks: record.allowed_cidrs().ok_or(CredentialError::Invalid)?,
            peer,
            holder: Holder::of_record(record).map_err(|_| CredentialError::Invalid)?.map(Arc::new),
            vouching: None,
        })
    }

    /// Checks that a record whose secret is proven is still accepted as a credential.
    ///
    /// # Errors
    /// The token is revoked, expired or disabled, or may not be used from `peer`.
    pub fn check_record(
        record: &Record,
        peer: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<(), CredentialError> {
        usable(record.state(now), record.admits(peer))
    }

    /// Returns the account that the caller's work is charged to.
    #[must_use]
    pub fn account(&self) -> Account {
        self.account
    }

    /// Returns the address of the call, if known.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Checks that the caller has the scope for a kind of call.
    ///
    /// # Errors
    /// No scope of the caller allows it.
    pub fn require(&self, permission: Permission) -> Result<(), AccessError> {
        let (scope, allowed) = match permission {
            Permission::Verify => (
                ReservedScope::Verify,
                self.holds(ReservedScope::Verify) || self.holds(ReservedScope::VerifyAny),
            ),
            Permission::Watch => (
                ReservedScope::Verify,
                self.holds(ReservedScope::Verify)
                    || self.holds(ReservedScope::VerifyAny)
                    || self.holds(ReservedScope::Read),
            ),
            Permission::ReadOwn => {
                (ReservedScope::Read, self.holds(ReservedScope::Read) || self.manages_own())
            }
            Permission::ReadAll => (ReservedScope::Read, self.holds(ReservedScope::Read)),
            Permission::WriteOwn => {
                (ReservedScope::Write, self.holds(ReservedScope::Write) || self.manages_own())
            }
            Permission::WriteAll => (ReservedScope::Write, self.holds(ReservedScope::Write)),
            Permission::Root => (ReservedScope::Root, self.holds(ReservedScope::Root)),
        };
        if allowed { Ok(()) } else { Err(AccessError::MissingScope(scope)) }
    }

    /// Returns the organizations whose tokens Verify judges for this caller.
    #[must_use]
    pub fn verify_reach(&self) -> Reach<'_> {
        if self.holds(ReservedScope::VerifyAny) { Reach::Any } else { self.reach() }
    }

    /// Returns the organization that a caller watches: the named one, else its own, or all of them
    /// (`None`) for a caller that may verify tokens of every organization.
    ///
    /// # Errors
    /// The named organization is not the caller's own.
    pub fn watched_organization(
        &self,
        named: Option<OrganizationId>,
    ) -> Result<Option<OrganizationId>, AccessError> {
        narrow(self.verify_reach(), named)
    }

    /// Returns the organizations whose tokens this caller can read and manage.
    #[must_use]
    pub fn reach(&self) -> Reach<'_> {
        if self.holds(ReservedScope::Root) { Reach::Any } else { Reach::Only(&self.organization_id) }
    }

    /// Returns the organization of a call: the named one, else the caller's own, or `default` for a
    /// root caller.
    ///
    /// # Errors
    /// The named organization is outside the caller's reach.
    pub fn organization(&self, named: Option<OrganizationId>) -> Result<OrganizationId, AccessError> {
        let narrowed = narrow(self.reach(), named)?;
        Ok(narrowed.unwrap_or_else(OrganizationId::default_organization))
    }

    /// Returns the organization of a listing: as [`Self::organization`], but a root caller that names
    /// none gets all (`None`).
    ///
    /// # Errors
    /// The named organization is outside the caller's reach.
    pub fn listed_organization(
        &self,
        named: Option<OrganizationId>,
    ) -> Result<Option<OrganizationId>, AccessError> {
        narrow(self.reach(), named)
    }

    /// Returns whether the caller's credential is the token with this id.
    #[must_use]
    pub fn is_token(&self, id: TokenId) -> bool {
        self.principal == Principal::Token(id)
    }

    /// Returns whether the caller may read a token with `GetToken`.
    #[must_use]
    pub fn may_see(&self, token: &Token) -> bool {
        self.extent(Permission::ReadOwn).is_ok_and(|extent| extent.includes(token))
    }

    /// Returns the tokens that this permission extends to: one that the caller has by `tokend:self` alone
    /// extends to those of its own user.
    ///
    /// # Errors
    /// No scope of the caller allows it.
    pub fn extent(&self, permission: Permission) -> Result<Extent<'_>, AccessError> {
        self.require(permission)?;
        let of_all = match permission {
            Permission::ReadOwn => ReservedScope::Read,
            _ => ReservedScope::Write,
        };
        Ok(match (self.reach(), &self.holder) {
            (Reach::Any, _) => Extent::Any,
            (Reach::Only(own), Some(holder))
                if matches!(permission, Permission::ReadOwn | Permission::WriteOwn)
                    && !self.holds(of_all) =>
            {
                Extent::User(own, &holder.user_id, holder.owner_kind)
            }
            (Reach::Only(own), _) => Extent::Organization(own),
        })
    }

    /// Returns the only user that this permission extends to; `None`: it extends to several, or the caller lacks it.
    #[must_use]
    pub fn only_user(&self, permission: Permission) -> Option<&UserId> {
        match self.extent(permission) {
            Ok(Extent::User(_, user, _)) => Some(user),
            _ => None,
        }
    }

    /// Returns the organization and the user of a listing: as [`Self::listed_organization`], and the caller's own
    /// user if it sees no other.
    ///
    /// # Errors
    /// The named organization or user is not one that the caller sees.
    pub fn listed_owner(
        &self,
        organization: Option<OrganizationId>,
        user: Option<UserId>,
    ) -> Result<(Option<OrganizationId>, Option<UserId>), AccessError> {
        let extent = self.extent(Permission::ReadOwn)?;
        let organization = self.listed_organization(organization)?;
        match (extent, user) {
            (Extent::User(_, own, _), None) => Ok((organization, Some(own.clone()))),
            (Extent::User(_, own, _), Some(named)) if named != *own => Err(AccessError::Exceeds(Bound::User)),
            (_, user) => Ok((organization, user)),
        }
    }

    /// Returns the kind of owner of a listing: the named one, and the caller's own if it sees no other.
    ///
    /// # Errors
    /// The named kind is not one that the caller sees.
    pub fn listed_kind(&self, named: Option<OwnerKind>) -> Result<Option<OwnerKind>, AccessError> {
        match (self.extent(Permission::ReadOwn)?, named) {
            (Extent::User(_, _, own), None) => Ok(Some(own)),
            (Extent::User(_, _, own), Some(named)) if named != own => Err(AccessError::Exceeds(Bound::User)),
            (_, named) => Ok(named),
        }
    }

    fn manages_own(&self) -> bool {
        self.reserved.contains(ReservedScope::Own) && self.holder.is_some()
    }

    fn holds(&self, scope: ReservedScope) -> bool {
        self.reserved.grants(scope)
    }
}

fn usable(state: TokenState, admitted: bool) -> Result<(), CredentialError> {
    match state {
        TokenState::Revoked => Err(CredentialError::Revoked),
        TokenState::Expired => Err(CredentialError::Expired),
        TokenState::Disabled => Err(CredentialError::Disabled),
        TokenState::Active if !admitted => Err(CredentialError::IpNotAllowed),
        TokenState::Active => Ok(()),
    }
}

/// Returns the named organization if it is in reach, else the only one in reach; `None`: none is named, and all are.
fn narrow(reach: Reach<'_>, named: Option<OrganizationId>) -> Result<Option<OrganizationId>, AccessError> {
    match (reach, named) {
        (Reach::Any, named) => Ok(named),
        (Reach::Only(own), None) => Ok(Some(own.clone())),
        (Reach::Only(own), Some(named)) if *own == named => Ok(Some(named)),
        (Reach::Only(_), Some(_)) => Err(AccessError::ForeignOrganization),
    }
}
