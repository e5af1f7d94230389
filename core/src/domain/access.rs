//! The caller, and what it may do. Called by the actions and by the engine when it authenticates.
//! Permissions come only from the credential: nothing here uses the claims of a request. Knows no
//! headers and no status codes.

use std::net::IpAddr;

use time::OffsetDateTime;

use super::account::Account;
use super::fields::OrganizationId;
use super::networks::Networks;
use super::principal::Principal;
use super::reach::Reach;
use super::record::Record;
use super::scope::{ReservedScope, ReservedScopes, Scopes};
use super::token::{Token, TokenState};
use crate::secret::TokenId;

mod bearer;
pub mod denial;
mod refusal;
#[cfg(test)]
mod tests;

pub use bearer::bearer;
pub use denial::Denial;
pub use refusal::{AccessError, CredentialError};

/// The kinds of calls, by the permission they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Verify secrets.
    Verify,
    /// Watch changes of tokens.
    Watch,
    /// Read tokens.
    Read,
    /// Create and change tokens.
    Write,
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
        let (networks, peer) = (Networks::default(), None);
        let account = Account::of_principal(&principal);
        Self { principal, account, organization_id, reserved, expire_time, networks, peer }
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
        Ok(Self {
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
        })
    }

    /// Creates the caller from the record of the token with this id, as [`Self::from_token`] does.
    ///
    /// # Errors
    /// Those of [`Self::from_token`], or the record's organization or networks cannot be read.
    pub fn from_record(
        id: TokenId,
        record: &Record,
        peer: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<Self, CredentialError> {
        Self::check_record(record, peer, now)?;
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
            Permission::Read => (ReservedScope::Read, self.holds(ReservedScope::Read)),
            Permission::Write => (ReservedScope::Write, self.holds(ReservedScope::Write)),
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
        match (self.verify_reach(), named) {
            (Reach::Any, named) => Ok(named),
            (Reach::Only(own), None) => Ok(Some(own.clone())),
            (Reach::Only(own), Some(named)) if *own == named => Ok(Some(named)),
            (Reach::Only(_), Some(_)) => Err(AccessError::ForeignOrganization),
        }
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
        match (self.reach(), named) {
            (Reach::Any, named) => Ok(named.unwrap_or_else(OrganizationId::default_organization)),
            (Reach::Only(own), None) => Ok(own.clone()),
            (Reach::Only(own), Some(named)) if *own == named => Ok(named),
            (Reach::Only(_), Some(_)) => Err(AccessError::ForeignOrganization),
        }
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
        if named.is_none() && self.reach() == Reach::Any {
            return Ok(None);
        }
        self.organization(named).map(Some)
    }

    /// Checks that the caller may give a token these scopes, this expiration and these networks: it
    /// needs every reserved scope among them, and a privileged token must not expire later or allow
    /// wider networks than the caller's own.
    ///
    /// # Errors
    /// A reserved scope is missing, or the token would outlive the caller or be usable from other
    /// networks.
    pub fn may_grant(
        &self,
        scopes: &Scopes,
        expire_time: Option<OffsetDateTime>,
        networks: &Networks,
    ) -> Result<(), AccessError> {
        let wanted = scopes.reserved();
        if wanted.is_empty() {
            return Ok(());
        }
        if let Some(scope) = self.reserved.lacking(wanted) {
            return Err(AccessError::Privileged(scope));
        }
        self.may_set_end(expire_time)?;
        self.may_set_networks(networks)
    }

    fn may_set_end(&self, expire_time: Option<OffsetDateTime>) -> Result<(), AccessError> {
        match (self.expire_time, expire_time) {
            (None, _) => Ok(()),
            (Some(own), Some(end)) if end <= own => Ok(()),
            _ => Err(AccessError::OutlivesCaller),
        }
    }

    fn may_set_networks(&self, networks: &Networks) -> Result<(), AccessError> {
        if self.networks.cover(networks) { Ok(()) } else { Err(AccessError::WiderNetworks) }
    }

    /// Checks that the caller may change a token within its reach: it needs every reserved scope of the
    /// token.
    ///
    /// # Errors
    /// The token has a reserved scope that the caller lacks.
    pub fn may_manage(&self, token: &Token) -> Result<(), AccessError> {
        self.may_manage_reserved(token.scopes.reserved())
    }

    /// Checks that the caller may change tokens with these reserved scopes: it needs every one of them.
    ///
    /// # Errors
    /// The caller lacks one of them.
    pub fn may_manage_reserved(&self, reserved: ReservedScopes) -> Result<(), AccessError> {
        match self.reserved.lacking(reserved) {
            Some(scope) => Err(AccessError::Privileged(scope)),
            None => Ok(()),
        }
    }

    /// Returns whether the caller's credential is the token with this id.
    #[must_use]
    pub fn is_token(&self, id: TokenId) -> bool {
        self.principal == Principal::Token(id)
    }

    /// Returns whether the caller may read a token with `GetToken`.
    #[must_use]
    pub fn may_see(&self, token: &Token) -> bool {
        self.require(Permission::Read).is_ok() && self.reach().includes(&token.organization_id)
    }

    /// Checks that the caller may enable a token within its reach: it needs every reserved scope of the
    /// token, and a privileged token must expire and be usable within the caller's own limits, since it
    /// regains its power.
    ///
    /// # Errors
    /// A reserved scope is missing, or the token would outlive the caller or be usable from other
    /// networks.
    pub fn may_enable(&self, token: &Token) -> Result<(), AccessError> {
        self.may_grant(&token.scopes, token.expire_time, &token.allowed_cidrs)
    }

    /// Checks that the caller may change a token within its reach from `before` to `after`: it needs
    /// every reserved scope of both, and what [`Self::may_grant`] requires for everything that the
    /// change gives to a privileged token.
    ///
    /// # Errors
    /// A reserved scope is missing, or the change gives a later expiration or wider networks than the
    /// caller has.
    pub fn may_change(&self, before: &Token, after: &Token) -> Result<(), AccessError> {
        self.may_manage(before)?;
        self.may_manage(after)?;
        let (had, has) = (before.scopes.reserved(), after.scopes.reserved());
        if has.is_empty() {
            return Ok(());
        }
        // A newly granted power also gets the old expiration and the old networks.
        let gains = had.lacking(has).is_some();
        if gains || after.expire_time != before.expire_time {
            self.may_set_end(after.expire_time)?;
        }
        if gains || after.allowed_cidrs != before.allowed_cidrs {
            self.may_set_networks(&after.allowed_cidrs)?;
        }
        Ok(())
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
