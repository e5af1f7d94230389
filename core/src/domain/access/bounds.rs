//! What a token with `tokend:self`, or with a grant, may issue at most. A bound that the grant does not set is
//! that of the token itself: its own scopes, user, expiration and networks. Used by `issuing`.

use time::{Duration, OffsetDateTime};

use super::{AccessError, Bound, Caller, ReservedScope, ReservedScopes};
use crate::domain::fields::{FieldError, UserId};
use crate::domain::grant::Grant;
use crate::domain::networks::Networks;
use crate::domain::owner::OwnerKind;
use crate::domain::plan::PlanName;
use crate::domain::portal::PortalTerms;
use crate::domain::record::Record;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::token::Token;

/// What of a caller's own token limits what it issues.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) user_id: UserId,
    /// What the user id names. Such a caller acts only for owners of its own kind.
    pub(super) owner_kind: OwnerKind,
    scopes: Scopes,
    /// `None`: the token has no grant.
    grant: Option<Grant>,
    /// The plan of the token itself.
    plan: Option<PlanName>,
}

impl Holder {
    /// Returns the holder; `None`: its rights do not depend on it.
    pub(super) fn of_token(token: &Token) -> Option<Self> {
        is_limited(token.scopes.reserved(), token.grant.is_some()).then(|| Self {
            user_id: token.user_id.clone(),
            owner_kind: token.owner_kind,
            scopes: token.scopes.clone(),
            grant: token.grant.clone(),
            plan: token.plan.clone(),
        })
    }

    /// Returns the holder, as [`Self::of_token`] does.
    ///
    /// # Errors
    /// A field of the record cannot be read.
    pub(super) fn of_record(record: &Record) -> Result<Option<Self>, FieldError> {
        let reserved = record.reserved();
        // Of most tokens nothing more is read.
        if !is_limited(reserved, true) {
            return Ok(None);
        }
        let packed = record.packed();
        let grant = packed.grant()?;
        if !is_limited(reserved, grant.is_some()) {
            return Ok(None);
        }
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| FieldError::ControlCharacter);
        let scopes = packed.scopes().map(|scope| Scope::parse(text(scope)?)).collect::<Result<_, _>>()?;
        let user_id = UserId::parse(text(packed.user_id())?)?;
        let owner_kind = packed.owner_kind();
        let plan = record.plan().map(PlanName::parse).transpose()?;
        Ok(Some(Self { user_id, owner_kind, scopes: Scopes::new(scopes)?, grant, plan }))
    }

    /// Returns the holder of a portal session.
    pub(super) fn of_portal(terms: &PortalTerms) -> Self {
        let (user_id, scopes) = (terms.user_id.clone(), terms.scopes.clone());
        Self { user_id, owner_kind: OwnerKind::User, scopes, grant: None, plan: None }
    }

    /// Returns the scopes that cover all scopes that may be issued, except reserved ones.
    pub(super) fn scopes(&self) -> &Scopes {
        let granted = self.grant.as_ref().map(|grant| &grant.scopes);
        granted.filter(|scopes| !scopes.is_empty()).unwrap_or(&self.scopes)
    }

    /// Returns the longest lifetime of what is issued; `None`: until the token's own expiration.
    pub(super) fn longest_lifetime(&self) -> Option<Duration> {
        self.grant.as_ref().and_then(|grant| grant.longest_lifetime)
    }

    /// Returns the plans of tokens that may be issued; none: only tokens without a plan.
    pub(super) fn plans(&self) -> &[PlanName] {
        self.plan.as_slice()
    }

    /// Returns whether tokens with `tokend:self` may be issued.
    pub(super) fn may_grant_self(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.may_grant_self)
    }
}

/// Returns whether a token with these scopes issues only what its own fields, or its grant, allow.
fn is_limited(reserved: ReservedScopes, has_grant: bool) -> bool {
    let (own, write) = (reserved.contains(ReservedScope::Own), reserved.contains(ReservedScope::Write));
    !reserved.contains(ReservedScope::Root) && (own || write && has_grant)
}

impl Caller {
    /// Returns what limits the caller; `None`: it may issue everything that its scopes allow.
    pub(super) fn bounds(&self) -> Option<&Holder> {
        let writes = self.holds(ReservedScope::Write);
        self.holder.as_deref().filter(|holder| !writes || holder.grant.is_some())
    }

    /// Checks that a bounded caller may act on tokens of this user.
    pub(super) fn check_user(
        &self,
        holder: &Holder,
        (user, kind): (&UserId, OwnerKind),
    ) -> Result<(), AccessError> {
        let users = holder.grant.as_ref().map(|grant| &grant.users).filter(|users| !users.is_empty());
        let included = match users {
            Some(users) if self.holds(ReservedScope::Write) => users.include(user),
            _ => *user == holder.user_id,
        };
        within(included && kind == holder.owner_kind, Bound::User)
    }

    /// Checks every field of a token that a bounded caller issues.
    pub(super) fn check_bounds(&self, holder: &Holder, token: &Token) -> Result<(), AccessError> {
        within(token.organization_id == self.organization_id, Bound::User)?;
        self.check_user(holder, (&token.user_id, token.owner_kind))?;
        self.check_scopes(holder, token)?;
        within(self.lives_within(holder, token.create_time, token.expire_time), Bound::Lifetime)?;
        within(self.bounding_networks(holder).cover(&token.allowed_cidrs), Bound::Networks)?;
        let covered = token.grant.as_ref().is_none_or(|grant| self.covers(holder, grant));
        within(covered, Bound::Grant)
    }

    fn check_scopes(&self, holder: &Holder, token: &Token) -> Result<(), AccessError> {
        let reserved = token.scopes.reserved();
        let writes = self.holds(ReservedScope::Write);
        for scope in ReservedScope::ALL.into_iter().filter(|scope| reserved.contains(*scope)) {
            match scope {
                // With a grant of its own, which is checked to be within the issuer's.
                ReservedScope::Write if writes => within(token.grant.is_some(), Bound::Grant)?,
                ReservedScope::Own => within(writes && holder.may_grant_self(), Bound::Scopes)?,
                _ => within(false, Bound::Scopes)?,
            }
        }
        let ordinary = token.scopes.iter().filter(|scope| ReservedScope::from_word(scope.as_str()).is_none());
        within(ordinary.into_iter().all(|scope| holder.scopes().cover(scope)), Bound::Scopes)
    }

    fn lives_within(&self, holder: &Holder, from: OffsetDateTime, end: Option<OffsetDateTime>) -> bool {
        match holder.longest_lifetime() {
            Some(longest) => end.is_some_and(|end| end <= from.saturating_add(longest)),
            None => self.may_set_end(end).is_ok(),
        }
    }

    fn bounding_networks<'a>(&'a self, holder: &'a Holder) -> &'a Networks {
        let granted = holder.grant.as_ref().map(|grant| &grant.networks);
        granted.filter(|networks| !networks.is_empty()).unwrap_or(&self.networks)
    }

    /// Returns whether a grant allows nothing that the caller itself may not issue.
    pub(super) fn covers(&self, holder: &Holder, given: &Grant) -> bool {
        let (own, writes) = (holder.grant.as_ref(), self.holds(ReservedScope::Write));
        let users = match own.map(|own| &own.users).filter(|users| !users.is_empty()) {
            Some(users) if writes => users.cover(&given.users),
            _ => given.users.are_only(&holder.user_id),
        };
        let lifetime = match (own.and_then(|own| own.longest_lifetime), given.longest_lifetime) {
            (_, None) => true,
            (Some(longest), Some(given)) => given <= longest,
            // Bounded by its own expiration, which a lifetime would pass.
            (None, Some(_)) => self.expire_time.is_none(),
        };
        let networks = given.networks.is_empty() || self.bounding_networks(holder).cover(&given.networks);
        users
            && lifetime
            && networks
            && given.scopes.iter().all(|scope| holder.scopes().cover(scope))
            && (!given.may_grant_self || writes && holder.may_grant_self())
    }
}

pub(super) fn within(is: bool, bound: Bound) -> Result<(), AccessError> {
    if is { Ok(()) } else { Err(AccessError::Exceeds(bound)) }
}
