//! A portal session: a person whom a caller vouches for manages their own tokens, within what that caller may issue.
//! Stored by the store, judged by access control. Has no times: the reader of a session judges whether it is over.

use std::hash::{Hash, Hasher};

use uuid::Uuid;

use super::fields::{OrganizationId, UserId};
use super::scope::Scopes;
use crate::secret::TokenId;

/// For whom a portal session is, and what may be issued in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalTerms {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The person.
    pub user_id: UserId,
    /// The scopes that cover every scope of a token that is issued; empty: tokens without scopes.
    pub scopes: Scopes,
}

/// A portal session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portal {
    /// Names the session; opens nothing.
    pub session_id: Uuid,
    /// The token that vouches for the person.
    pub token_id: TokenId,
    /// What it allows.
    pub terms: PortalTerms,
}

impl Hash for Portal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session_id.hash(state);
    }
}
