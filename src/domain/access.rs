//! Who calls, and what that caller may do. Called by the actions and by the engine when it
//! authenticates. Authority comes from the credential alone: nothing here looks at a request's own
//! claims. Knows no headers and no status codes.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use super::fields::OrganizationId;
use super::networks::Networks;
use super::record::Record;
use super::scope::{ReservedScope, ReservedScopes, Scopes};
use super::token::{Token, TokenState};
use crate::secret::TokenId;

/// Who did something: written into `created_by` and into the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The holder of the token with this id.
    Token(TokenId),
    /// The holder of a client certificate with this subject alternative name.
    Certificate(Arc<str>),
    /// The operator, through `tokend bootstrap` or the embedded start.
    Bootstrap,
}

/// What precedes a certificate's name; no token id has a colon.
const CERTIFICATE: &str = "cert:";

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => id.fmt(f),
            Self::Certificate(name) => write!(f, "{CERTIFICATE}{name}"),
            Self::Bootstrap => f.write_str("bootstrap"),
        }
    }
}

impl Principal {
    /// Reads back what [`fmt::Display`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "bootstrap" => Some(Self::Bootstrap),
            text if text.starts_with(CERTIFICATE) => {
                Some(Self::Certificate(text[CERTIFICATE.len()..].into()))
            }
            id => TokenId::parse(id).ok().map(Self::Token),
        }
    }
}

/// Why a credential was not accepted. Each is `UNAUTHENTICATED` to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is none.
    #[error("no credential was given; send the metadata 'authorization: Bearer <secret>'")]
    Missing,
    /// The header is not exactly one `Bearer <secret>`.
    #[error("the authorization metadata must be exactly one value of the form 'Bearer <secret>'")]
    Malformed,
    /// The secret is not a known one.
    #[error("the credential is not valid")]
    Invalid,
    /// The token has expired.
    #[error("the credential has expired")]
    Expired,
    /// The token was revoked.
    #[error("the credential was revoked")]
    Revoked,
    /// The token is disabled.
    #[error("the credential is disabled")]
    Disabled,
    /// The token may not be used from where the call comes from.
    #[error("the credential may not be used from this address")]
    IpNotAllowed,
}

/// Why a caller may not do what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The caller lacks the scope that the call needs.
    #[error("the caller lacks the scope {}", .0.word())]
    MissingScope(ReservedScope),
    /// The caller named an organization that is not its own.
    #[error("the caller may act in its own organization alone")]
    ForeignOrganization,
    /// The token holds, or would hold, a reserved scope that the caller lacks.
    #[error("the token holds the reserved scope {}, which the caller lacks", .0.word())]
    Privileged(ReservedScope),
    /// A privileged token would live longer than its creator.
    #[error("a token with a reserved scope must not expire later than the caller's own")]
    OutlivesCaller,
    /// A privileged token could be used from where its creator cannot.
    #[error("a token with a reserved scope must not be usable from more networks than the caller's own")]
    WiderNetworks,
}

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

/// The organizations whose tokens a caller can see or have judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'a> {
    /// Every organization.
    Any,
    /// This one alone.
    Only(&'a OrganizationId),
}

impl Reach<'_> {
    /// Tells whether tokens of `organization` are within reach.
    #[must_use]
    pub fn includes(&self, organization: &OrganizationId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(own) => *own == organization,
        }
    }

    /// Tells whether a record's token is within reach.
    #[must_use]
    pub fn includes_record(&self, record: &Record) -> bool {
        match self {
            Self::Any => true,
            Self::Only(own) => record.packed().lives_in(own),
        }
    }
}

/// An authenticated caller and its powers.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    organization_id: OrganizationId,
    reserved: ReservedScopes,
    expire_time: Option<OffsetDateTime>,
    networks: Networks,
    peer: Option<IpAddr>,
}

impl Caller {
    /// Makes a caller whose credential is not a token.
    pub(super) fn new(
        principal: Principal,
        organization_id: OrganizationId,
        reserved: ReservedScopes,
        expire_time: Option<OffsetDateTime>,
    ) -> Self {
        let (networks, peer) = (Networks::default(), None);
        Self { principal, organization_id, reserved, expire_time, networks, peer }
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
        let organization_id = std::str::from_utf8(record.packed().organization_id())
            .ok()
            .and_then(|text| OrganizationId::parse(text).ok())
            .ok_or(CredentialError::Invalid)?;
        Ok(Self {
            principal: Principal::Token(id),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::networks::Network;
    use crate::domain::scope::Scope;
    use crate::domain::token::tests::token;
    use time::Duration;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn caller(scopes: &[&str]) -> Caller {
        Caller::from_token(&token(scopes), None, NOW).unwrap()
    }

    fn organization(text: &str) -> OrganizationId {
        OrganizationId::parse(text).unwrap()
    }

    fn scopes(text: &str) -> Scopes {
        Scopes::new(vec![Scope::parse(text).unwrap()]).unwrap()
    }

    fn network(text: &str) -> Networks {
        Networks::new(vec![Network::parse(text).unwrap()]).unwrap()
    }

    #[test]
    fn a_token_with_networks_makes_a_caller_only_from_within_them() {
        let mut token = token(&["tokend:root"]);
        token.allowed_cidrs = network("10.0.0.0/8");
        let from = |peer: Option<&str>| {
            let peer = peer.map(|text| text.parse().unwrap());
            Caller::from_token(&token, peer, NOW).map(drop)
        };
        assert_eq!(from(Some("10.1.2.3")), Ok(()));
        assert_eq!(from(Some("::ffff:10.1.2.3")), Ok(()));
        assert_eq!(from(Some("192.0.2.7")), Err(CredentialError::IpNotAllowed));
        assert_eq!(from(None), Err(CredentialError::IpNotAllowed));
    }

    #[test]
    fn a_privileged_token_is_not_usable_from_more_networks_than_its_creator() {
        let mut writer = caller(&["tokend:write"]);
        let any = Networks::default();
        assert_eq!(writer.may_grant(&scopes("tokend:write"), None, &any), Ok(()));
        writer.networks = network("10.0.0.0/8");
        let grant = |scope: &str, networks: &Networks| writer.may_grant(&scopes(scope), None, networks);
        assert_eq!(grant("tokend:write", &network("10.1.0.0/16")), Ok(()));
        assert_eq!(grant("tokend:write", &network("11.0.0.0/8")), Err(AccessError::WiderNetworks));
        assert_eq!(grant("tokend:write", &any), Err(AccessError::WiderNetworks));
        assert_eq!(grant("a:b", &any), Ok(()));
    }

    #[test]
    fn a_revoked_or_expired_token_makes_no_caller() {
        let mut expired = token(&["tokend:root"]);
        expired.expire_time = Some(NOW);
        assert_eq!(Caller::from_token(&expired, None, NOW).unwrap_err(), CredentialError::Expired);
        let mut revoked = token(&["tokend:root"]);
        revoked.revoke_time = Some(NOW);
        assert_eq!(Caller::from_token(&revoked, None, NOW).unwrap_err(), CredentialError::Revoked);
    }

    #[test]
    fn each_permission_needs_its_scope_or_root() {
        use Permission::{Read, Verify, Write};
        for (scope, allowed) in [
            ("tokend:verify", vec![Verify]),
            ("tokend:verify:any", vec![Verify]),
            ("tokend:read", vec![Read]),
            ("tokend:write", vec![Write]),
            ("tokend:root", vec![Verify, Read, Write]),
            ("a:*", vec![]),
        ] {
            for permission in [Verify, Read, Write] {
                assert_eq!(
                    caller(&[scope]).require(permission).is_ok(),
                    allowed.contains(&permission),
                    "{scope} {permission:?}"
                );
            }
        }
    }

    #[test]
    fn only_root_reaches_other_organizations_and_verify_any_only_for_verdicts() {
        let acme = organization("acme");
        let own = Reach::Only(&acme);
        assert_eq!(caller(&["tokend:write"]).reach(), own);
        assert_eq!(caller(&["tokend:verify:any"]).reach(), own);
        assert_eq!(caller(&["tokend:verify:any"]).verify_reach(), Reach::Any);
        assert_eq!(caller(&["tokend:verify"]).verify_reach(), own);
        assert_eq!(caller(&["tokend:root"]).reach(), Reach::Any);
    }

    #[test]
    fn an_organization_not_named_is_the_callers_own_and_for_root_the_default() {
        let writer = caller(&["tokend:write"]);
        let root = caller(&["tokend:root"]);
        assert_eq!(writer.organization(None), Ok(organization("acme")));
        assert_eq!(writer.organization(Some(organization("other"))), Err(AccessError::ForeignOrganization));
        assert_eq!(root.organization(None), Ok(organization("default")));
        assert_eq!(root.listed_organization(None), Ok(None));
        assert_eq!(writer.listed_organization(None), Ok(Some(organization("acme"))));
    }

    #[test]
    fn a_reserved_scope_is_granted_only_by_its_holder_and_not_for_longer() {
        let mut writer = caller(&["tokend:write", "tokend:read"]);
        let any = Networks::default();
        assert_eq!(writer.may_grant(&scopes("tokend:read"), None, &any), Ok(()));
        assert_eq!(
            writer.may_grant(&scopes("tokend:verify"), None, &any),
            Err(AccessError::Privileged(ReservedScope::Verify))
        );
        writer.expire_time = Some(NOW + Duration::HOUR);
        let grant = |end| writer.may_grant(&scopes("tokend:read"), end, &any);
        assert_eq!(grant(Some(NOW + Duration::HOUR)), Ok(()));
        assert_eq!(grant(Some(NOW + Duration::DAY)), Err(AccessError::OutlivesCaller));
        assert_eq!(grant(None), Err(AccessError::OutlivesCaller));
        assert_eq!(writer.may_grant(&scopes("a:b"), None, &any), Ok(()));
    }

    #[test]
    fn a_privileged_token_is_managed_only_by_who_holds_all_its_reserved_scopes() {
        let target = token(&["tokend:verify", "a:b"]);
        assert!(caller(&["tokend:write"]).may_manage(&target).is_err());
        assert!(caller(&["tokend:write", "tokend:verify"]).may_manage(&target).is_ok());
        assert!(caller(&["tokend:root"]).may_manage(&target).is_ok());
    }

    #[test]
    fn a_change_gives_a_privileged_token_nothing_that_the_caller_lacks() {
        let mut writer = caller(&["tokend:write", "tokend:read"]);
        writer.expire_time = Some(NOW + Duration::HOUR);
        writer.networks = network("10.0.0.0/8");
        let eternal = token(&["tokend:read"]);
        let with = |change: &dyn Fn(&mut Token)| {
            let mut after = eternal.clone();
            change(&mut after);
            writer.may_change(&eternal, &after)
        };
        assert_eq!(with(&|after| after.name = crate::domain::TokenName::parse("n").unwrap()), Ok(()));
        assert_eq!(with(&|after| after.expire_time = Some(NOW + Duration::HOUR)), Ok(()));
        let later = with(&|after| after.expire_time = Some(NOW + Duration::DAY));
        assert_eq!(later, Err(AccessError::OutlivesCaller));
        assert_eq!(with(&|after| after.allowed_cidrs = network("10.1.0.0/16")), Ok(()));
        let wider = with(&|after| after.allowed_cidrs = network("11.0.0.0/8"));
        assert_eq!(wider, Err(AccessError::WiderNetworks));
        let mightier = with(&|after| after.scopes = token(&["tokend:read", "tokend:write"]).scopes);
        assert_eq!(mightier, Err(AccessError::OutlivesCaller));
        let lacking = with(&|after| after.scopes = scopes("tokend:verify"));
        assert_eq!(lacking, Err(AccessError::Privileged(ReservedScope::Verify)));
        assert_eq!(with(&|after| after.scopes = Scopes::default()), Ok(()));
        let ordinary = token(&["a:b"]);
        let privileged = writer.may_change(&ordinary, &token(&["a:b", "tokend:read"]));
        assert_eq!(privileged, Err(AccessError::OutlivesCaller));
        assert_eq!(writer.may_change(&ordinary, &token(&["c:d"])), Ok(()));
    }

    #[test]
    fn a_principal_reads_back_what_it_wrote() {
        for principal in [Principal::Bootstrap, Principal::Token(TokenId::from_bytes([9; 16]))] {
            assert_eq!(Principal::parse(&principal.to_string()), Some(principal));
        }
        assert_eq!(Principal::parse("someone"), None);
    }
}
