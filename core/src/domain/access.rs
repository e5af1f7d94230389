//! Who calls, and what that caller may do. Called by the actions and by the engine when it
//! authenticates. Authority comes from the credential alone: nothing here looks at a request's own
//! claims. Knows no headers and no status codes.

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

/// What kinds of calls there are, as far as permission goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Ask for verdicts.
    Verify,
    /// Hear which tokens change.
    Watch,
    /// See tokens.
    Read,
    /// Create and change tokens.
    Write,
    /// Say what an organization's tokens may be.
    Root,
}

/// An authenticated caller and its powers.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    account: Account,
    organization_id: OrganizationId,
    reserved: ReservedScopes,
    expire_time: Option<OffsetDateTime>,
    networks: Networks,
    peer: Option<IpAddr>,
}

impl Caller {
    /// Makes a caller whose credential is not a token.
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

    /// Makes a caller of the token whose secret it presented from `peer`, as the token stands at `now`.
    ///
    /// # Errors
    /// The token is revoked, expired or disabled, or may not be used from there.
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

    /// Makes a caller of the record of the token with this id, as [`Self::from_token`] does.
    ///
    /// # Errors
    /// Those of [`Self::from_token`], or its organization is not one.
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

    /// Tells whether a record whose secret is proven still makes a caller.
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

    /// Returns who the caller's work is counted against.
    #[must_use]
    pub fn account(&self) -> Account {
        self.account
    }

    /// Returns where the call comes from, as far as that is known.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Demands the scope for a kind of call.
    ///
    /// # Errors
    /// The caller has no scope that allows it.
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

    /// Returns whose tokens Verify judges for this caller.
    #[must_use]
    pub fn verify_reach(&self) -> Reach<'_> {
        if self.holds(ReservedScope::VerifyAny) { Reach::Any } else { self.reach() }
    }

    /// Returns the organization that a caller watches: the named one, else its own, for one that has tokens of
    /// every organization judged all of them (`None`).
    ///
    /// # Errors
    /// It named another organization than its own.
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

    /// Returns whose tokens this caller can see and manage.
    #[must_use]
    pub fn reach(&self) -> Reach<'_> {
        if self.holds(ReservedScope::Root) { Reach::Any } else { Reach::Only(&self.organization_id) }
    }

    /// Returns the organization that a call means: the named one, else the caller's own, for a root
    /// caller `default`.
    ///
    /// # Errors
    /// The named organization is out of the caller's reach.
    pub fn organization(&self, named: Option<OrganizationId>) -> Result<OrganizationId, AccessError> {
        match (self.reach(), named) {
            (Reach::Any, named) => Ok(named.unwrap_or_else(OrganizationId::default_organization)),
            (Reach::Only(own), None) => Ok(own.clone()),
            (Reach::Only(own), Some(named)) if *own == named => Ok(named),
            (Reach::Only(_), Some(_)) => Err(AccessError::ForeignOrganization),
        }
    }

    /// Returns the organization that a listing is limited to: as [`Self::organization`], but a root
    /// caller that names none sees all (`None`).
    ///
    /// # Errors
    /// The named organization is out of the caller's reach.
    pub fn listed_organization(
        &self,
        named: Option<OrganizationId>,
    ) -> Result<Option<OrganizationId>, AccessError> {
        if named.is_none() && self.reach() == Reach::Any {
            return Ok(None);
        }
        self.organization(named).map(Some)
    }

    /// Demands what it takes to give a token these scopes, this end and these networks: every reserved scope
    /// among them, and for a privileged token an end no later and networks no wider than the caller's own.
    ///
    /// # Errors
    /// A reserved scope is lacking, or the token would outlive the caller or be usable from elsewhere.
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

    /// Demands what it takes to change a token that is within reach: every reserved scope of it.
    ///
    /// # Errors
    /// The token holds a reserved scope that the caller lacks.
    pub fn may_manage(&self, token: &Token) -> Result<(), AccessError> {
        self.may_manage_reserved(token.scopes.reserved())
    }

    /// Demands what it takes to change tokens that hold these reserved scopes: every one of them.
    ///
    /// # Errors
    /// The caller lacks one.
    pub fn may_manage_reserved(&self, reserved: ReservedScopes) -> Result<(), AccessError> {
        match self.reserved.lacking(reserved) {
            Some(scope) => Err(AccessError::Privileged(scope)),
            None => Ok(()),
        }
    }

    /// Tells whether the caller calls with the token that has this id.
    #[must_use]
    pub fn is_token(&self, id: TokenId) -> bool {
        self.principal == Principal::Token(id)
    }

    /// Tells whether the caller may see a token: it could Get it.
    #[must_use]
    pub fn may_see(&self, token: &Token) -> bool {
        self.require(Permission::Read).is_ok() && self.reach().includes(&token.organization_id)
    }

    /// Demands what it takes to take a token that is within reach into use again: every reserved scope of it,
    /// and for a privileged one an end and networks within the caller's own, since it gains its power anew.
    ///
    /// # Errors
    /// A reserved scope is lacking, or the token would outlive the caller or be usable from elsewhere.
    pub fn may_enable(&self, token: &Token) -> Result<(), AccessError> {
        self.may_grant(&token.scopes, token.expire_time, &token.allowed_cidrs)
    }

    /// Demands what it takes to turn a token that is within reach into another: every reserved scope that it
    /// holds or is to hold, and what [`Self::may_grant`] demands of whatever the change gives a privileged one.
    ///
    /// # Errors
    /// A reserved scope is lacking, or the change gives a later end or wider networks than the caller has.
    pub fn may_change(&self, before: &Token, after: &Token) -> Result<(), AccessError> {
        self.may_manage(before)?;
        self.may_manage(after)?;
        let (had, has) = (before.scopes.reserved(), after.scopes.reserved());
        if has.is_empty() {
            return Ok(());
        }
        // With a power that is new to it, an old end and old networks are given to that power.
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
