//! What owns a token. Called by everything that acts on all tokens of one owner. Knows no SQL.

use super::fields::{OrganizationId, UserId};

/// What a user id names. A person and a service account of one id are two owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum OwnerKind {
    /// A person.
    #[default]
    User,
    /// A service account.
    Service,
}

impl OwnerKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::User, Self::Service];

    /// Returns the kind's lower-case name, as stored.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Returns its number in the contract.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Service => 2,
        }
    }
}

/// The owner of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The organization that the owner belongs to.
    pub organization_id: &'a OrganizationId,
    /// The id.
    pub user_id: &'a UserId,
    /// What the id names.
    pub kind: OwnerKind,
}
