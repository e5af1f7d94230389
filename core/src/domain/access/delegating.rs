//! What a caller lets a program have that acts for it: a token with `tokend:self` for its own user, which is narrower than
//! the caller in everything, and so issues nothing that the caller may not issue.

use super::bounds::{Holder, within};
use super::{AccessError, Bound, Caller, ReservedScope, ReservedScopes};
use crate::domain::grant::Grant;
use crate::domain::token::Token;

impl Caller {
    /// Checks that the caller may have this token made for a program that acts for it. Unlike a token that it issues,
    /// it may have `tokend:self` without a grant that allows so: the caller itself has that right.
    ///
    /// # Errors
    /// The token has another reserved scope, belongs to a user for whom the caller issues no tokens, or is or issues
    /// more than the caller.
    pub fn may_delegate(&self, token: &Token) -> Result<(), AccessError> {
        let only_self: ReservedScopes = [ReservedScope::Own].into_iter().collect();
        self.may_manage_reserved(only_self)?;
        within(token.scopes.reserved() == only_self && token.scopes.ordinary().is_empty(), Bound::Scopes)?;
        within(token.expire_time.is_some(), Bound::Lifetime)?;
        self.may_set_end(token.expire_time)?;
        self.may_set_networks(&token.allowed_cidrs)?;
        let Some(holder) = self.bounds() else { return Ok(()) };
        within(token.organization_id == self.organization_id, Bound::User)?;
        self.check_user(holder, (&token.user_id, token.owner_kind))?;
        within(self.issues_as_long(holder, token), Bound::Lifetime)?;
        let grant = token.grant.clone().unwrap_or_default();
        within(self.covers(holder, &Grant { longest_lifetime: None, ..grant }), Bound::Grant)
    }

    /// Returns whether nothing that the token issues, as long as it lasts, expires later than what the caller issues.
    fn issues_as_long(&self, holder: &Holder, token: &Token) -> bool {
        let given = token.grant.as_ref().and_then(|grant| grant.longest_lifetime);
        match (holder.longest_lifetime(), given, self.expire_time, token.expire_time) {
            (Some(own), Some(given), ..) => given <= own,
            // Without a lifetime it would issue until its own end, however long after.
            (Some(_), None, ..) | (None, Some(_), Some(_), None) => false,
            (None, None, ..) | (None, Some(_), None, _) => true,
            (None, Some(given), Some(own_end), Some(end)) => end.saturating_add(given) <= own_end,
        }
    }
}
