//! Who may open portal sessions, and what is done in them. A person in a portal session manages the tokens of their
//! own user as with `tokend:self`, and does nothing that the token which vouches for them may not do itself. That token
//! is judged anew for each act, so the session never does more than the token may now.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use super::bounds::{Holder, within};
use super::{
    AccessError, Account, Bound, Caller, CredentialError, Networks, OwnerKind, Permission, Principal,
    ReservedScope, usable,
};
use crate::domain::portal::{Portal, PortalTerms};
use crate::domain::record::Record;
use crate::domain::token::Token;
use crate::secret::TokenId;

impl Caller {
    /// Checks that the caller may vouch for a person on these terms.
    ///
    /// # Errors
    /// The caller lacks `tokend:write`, or the organization, the user or a scope is beyond what it may issue.
    pub fn may_vouch(&self, terms: &PortalTerms) -> Result<(), AccessError> {
        self.require(Permission::WriteAll)?;
        self.organization(Some(terms.organization_id.clone()))?;
        within(terms.scopes.reserved().is_empty(), Bound::Scopes)?;
        let Some(holder) = self.bounds() else { return Ok(()) };
        self.check_user(holder, (&terms.user_id, OwnerKind::User))?;
        within(terms.scopes.iter().all(|scope| holder.scopes().cover(scope)), Bound::Scopes)
    }

    /// Creates the caller that vouches in portal sessions from its token, judged at `now`. The networks of the token
    /// bind its own calls, not the person's.
    ///
    /// # Errors
    /// The token is revoked, expired or disabled.
    pub fn vouching_token(token: &Token, now: OffsetDateTime) -> Result<Self, CredentialError> {
        usable(token.state(now), true)?;
        Ok(Self::of_token(token, None))
    }

    /// Creates the caller that vouches from the record of the token with this id, as [`Self::vouching_token`] does.
    ///
    /// # Errors
    /// Those of [`Self::vouching_token`], or a field of the record cannot be read.
    pub fn vouching_record(
        id: TokenId,
        record: &Record,
        now: OffsetDateTime,
    ) -> Result<Self, CredentialError> {
        usable(record.state(now), true)?;
        Self::of_record(id, record, None)
    }

    /// Creates the caller of a portal session, whose person calls from `peer`, with the caller that vouches, as it was
    /// judged just now.
    ///
    /// # Errors
    /// [`CredentialError::PortalOver`]: that one is no longer accepted, or may no longer vouch on these terms.
    pub fn in_portal(
        portal: &Arc<Portal>,
        vouching: Result<Self, CredentialError>,
        peer: Option<IpAddr>,
    ) -> Result<Self, CredentialError> {
        let vouching = vouching.map_err(|_| CredentialError::PortalOver)?;
        vouching.may_vouch(&portal.terms).map_err(|_| CredentialError::PortalOver)?;
        let PortalTerms { organization_id, user_id, .. } = &portal.terms;
        Ok(Self {
            account: Account::of_user(organization_id.as_str().as_bytes(), user_id.as_str().as_bytes()),
            organization_id: organization_id.clone(),
            reserved: [ReservedScope::Own].into_iter().collect(),
            // Bounded by those of the caller that vouches, or by its grant.
            expire_time: None,
            networks: Networks::default(),
            peer,
            holder: Some(Arc::new(Holder::of_portal(&portal.terms))),
            principal: Principal::Portal(Arc::clone(portal)),
            vouching: Some(Arc::new(vouching)),
        })
    }
}
