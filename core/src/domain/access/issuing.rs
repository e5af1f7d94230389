//! What a caller may issue, change and end. No act makes a token wider, in its scopes, owner, lifetime, networks or
//! grant, than what the caller may issue.

use time::OffsetDateTime;

use super::bounds::Holder;
use super::{AccessError, Bound, Caller, ReservedScope, ReservedScopes};
use crate::domain::fields::UserId;
use crate::domain::networks::Networks;
use crate::domain::owner::OwnerKind;
use crate::domain::scope::Scopes;
use crate::domain::token::Token;

impl Caller {
    /// Checks that the caller may issue this token as it is, within its reach. It needs every reserved scope of it; a
    /// privileged token must not expire later or allow wider networks than the caller's own. A caller with
    /// `tokend:self`, or with a grant, issues only what that allows.
    ///
    /// # Errors
    /// A reserved scope is missing, or a field of the token is wider than the caller may issue.
    pub fn may_issue(&self, token: &Token) -> Result<(), AccessError> {
        let wanted = token.scopes.reserved();
        if !wanted.is_empty() {
            self.may_manage_reserved(wanted)?;
            self.may_set_end(token.expire_time)?;
            self.may_set_networks(&token.allowed_cidrs)?;
        }
        self.bounds().map_or(Ok(()), |holder| self.check_bounds(holder, token))?;
        self.vouching.as_deref().map_or(Ok(()), |vouching| vouching.may_issue(token))
    }

    /// Checks that the caller may issue a token which it issued before, once more: it manages it, and, if bounded, may
    /// still issue it.
    ///
    /// # Errors
    /// As for [`Self::may_manage`] and [`Self::may_issue`].
    pub fn may_issue_again(&self, token: &Token) -> Result<(), AccessError> {
        self.may_manage(token)?;
        if self.bounds().is_some() { self.may_issue(token) } else { Ok(()) }
    }

    pub(super) fn may_set_end(&self, expire_time: Option<OffsetDateTime>) -> Result<(), AccessError> {
        match (self.expire_time, expire_time) {
            (None, _) => Ok(()),
            (Some(own), Some(end)) if end <= own => Ok(()),
            _ => Err(AccessError::OutlivesCaller),
        }
    }

    pub(super) fn may_set_networks(&self, networks: &Networks) -> Result<(), AccessError> {
        if self.networks.cover(networks) { Ok(()) } else { Err(AccessError::WiderNetworks) }
    }

    /// Checks that the caller may end a token within its reach: it needs every reserved scope of the token. A caller
    /// with a grant needs the token's user in it, and may end only such tokens with `tokend:write` as it may issue.
    ///
    /// # Errors
    /// The token has a reserved scope that the caller lacks, or is beyond its grant.
    pub fn may_manage(&self, token: &Token) -> Result<(), AccessError> {
        let reserved = token.scopes.reserved();
        self.may_manage_reserved(reserved)?;
        let Some(holder) = self.bounds() else { return Ok(()) };
        self.check_user(holder, (&token.user_id, token.owner_kind))?;
        if reserved.contains(ReservedScope::Write) {
            self.may_issue(token)?;
        }
        self.vouching.as_deref().map_or(Ok(()), |vouching| vouching.may_manage(token))
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

    /// Checks that the caller may end all tokens of a user of its organization.
    ///
    /// # Errors
    /// The user is not in its grant.
    pub fn may_end_all(&self, user: &UserId, kind: OwnerKind) -> Result<(), AccessError> {
        self.bounds().map_or(Ok(()), |holder| self.check_user(holder, (user, kind)))
    }

    /// Checks that the caller may end all tokens of a user, which have these reserved scopes.
    ///
    /// # Errors
    /// The caller lacks one of them, or has a grant, and one of the tokens has `tokend:write`.
    pub fn may_end_reserved(&self, reserved: ReservedScopes) -> Result<(), AccessError> {
        self.may_manage_reserved(reserved)?;
        // Whether their grants are within its own is not known here.
        match self.bounds() {
            Some(_) if reserved.contains(ReservedScope::Write) => Err(AccessError::Exceeds(Bound::Grant)),
            _ => Ok(()),
        }
    }

    /// Returns whether the caller may issue a reserved scope to a token without a grant.
    #[must_use]
    pub fn offers(&self, scope: ReservedScope) -> bool {
        let wanted: ReservedScopes = [scope].into_iter().collect();
        match self.bounds() {
            None => self.may_manage_reserved(wanted).is_ok(),
            Some(holder) => {
                scope == ReservedScope::Own && self.holds(ReservedScope::Write) && holder.may_grant_self()
            }
        }
    }

    /// Returns whether the caller may issue a reserved scope, to a token with a grant if need be.
    #[must_use]
    pub fn offers_with_grant(&self, scope: ReservedScope) -> bool {
        self.offers(scope)
            || scope == ReservedScope::Write && self.bounds().is_some() && self.holds(ReservedScope::Write)
    }

    /// Returns the only kind of owner for whom the caller may issue tokens; `None`: for any.
    #[must_use]
    pub fn offered_kind(&self) -> Option<OwnerKind> {
        self.bounds().map(|holder| holder.owner_kind)
    }

    /// Returns the scopes that cover all others that the caller may issue; `None`: it may issue any.
    #[must_use]
    pub fn offered_scopes(&self) -> Option<&Scopes> {
        self.bounds().map(Holder::scopes)
    }

    /// Checks that the caller may change a token within its reach from `before` to `after`. It needs every reserved
    /// scope of both, and what [`Self::may_issue`] requires for everything that the change adds to a privileged token.
    /// A bounded caller must be able to issue both.
    ///
    /// # Errors
    /// A reserved scope is missing, or the change adds more than the caller may issue.
    pub fn may_change(&self, before: &Token, after: &Token) -> Result<(), AccessError> {
        if self.bounds().is_some() {
            self.may_issue(before)?;
            return self.may_issue(after);
        }
        self.may_manage(before)?;
        self.may_manage(after)?;
        let (had, has) = (before.scopes.reserved(), after.scopes.reserved());
        if has.is_empty() {
            return Ok(());
        }
        // A newly granted power also gets the old expiration and the old networks.
        let gains = had.lacking(has).is_some() || before.grant != after.grant;
        if gains || after.expire_time != before.expire_time {
            self.may_set_end(after.expire_time)?;
        }
        if gains || after.allowed_cidrs != before.allowed_cidrs {
            self.may_set_networks(&after.allowed_cidrs)?;
        }
        Ok(())
    }
}
