//! The grant of a token: the limits of the tokens that it may create and change. Parsed by the gRPC API, stored by the store, compared by access
//! control. A bound that is not set is that of the token itself.

use time::Duration;

use super::fields::{FieldError, UserId, UserPrefix};
use super::networks::Networks;
use super::scope::{ReservedScope, ReservedScopes, Scopes};

/// The maximum number of users and prefixes of a grant, together.
pub const MAX_USERS: usize = 64;

/// The maximum length of all texts of a grant, together, in bytes.
pub const MAX_BYTES: usize = 4 << 10;

/// What a token with `tokend:write` or `tokend:self` may issue at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// The scopes that cover every scope of a token that is issued; empty: the token's own.
    pub scopes: Scopes,
    /// The users for whom it issues tokens; none: the token's own user.
    pub users: Users,
    /// The longest time from creation to expiration, in whole seconds; `None`: until the token's own expiration.
    pub longest_lifetime: Option<Duration>,
    /// The networks that contain those of every token that is issued; empty: the token's own.
    pub networks: Networks,
    /// Whether tokens with `tokend:self` may be issued.
    pub may_grant_self: bool,
}

/// A set of users: by their ids, by the beginning of their ids, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    ids: Box<[UserId]>,
    prefixes: Box<[UserPrefix]>,
    all: bool,
}

impl Grant {
    /// Checks the limits that concern several fields.
    ///
    /// # Errors
    /// It has a reserved scope, or is longer than [`MAX_BYTES`].
    pub fn check(&self) -> Result<(), FieldError> {
        if !self.scopes.reserved().is_empty() {
            return Err(FieldError::Rule("has a reserved scope: only may_grant_self allows to issue one"));
        }
        if self.bytes() > MAX_BYTES {
            return Err(FieldError::TooLong { limit: MAX_BYTES, unit: "bytes" });
        }
        Ok(())
    }

    /// Checks that a token with these reserved scopes can have the grant.
    ///
    /// # Errors
    /// The token issues nothing, issues everything, or issues only to its own user what the grant sets for others.
    pub fn suits(&self, reserved: ReservedScopes) -> Result<(), FieldError> {
        if reserved.contains(ReservedScope::Root) {
            return Err(FieldError::Rule("cannot limit a token with tokend:root"));
        }
        if reserved.contains(ReservedScope::Write) {
            return Ok(());
        }
        if !reserved.contains(ReservedScope::Own) {
            return Err(FieldError::Rule("needs tokend:write or tokend:self among the token's scopes"));
        }
        if !self.users.is_empty() || self.may_grant_self {
            return Err(FieldError::Rule(
                "names users, or allows to issue tokens with tokend:self, which needs tokend:write among the token's scopes",
            ));
        }
        Ok(())
    }

    /// Returns the length of all its texts together, each with two bytes for its frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let scopes = self.scopes.iter().map(|scope| scope.as_str().len());
        let users = self.users.ids().map(str::len).chain(self.users.prefixes().map(str::len));
        let networks = self.networks.iter().map(|network| network.to_string().len());
        scopes
            .chain(users)
            .chain(networks)
            .fold(0, |sum, length| sum.saturating_add(length).saturating_add(2))
    }
}

impl Users {
    /// Creates the set; duplicates are stored once.
    ///
    /// # Errors
    /// There are more than [`MAX_USERS`], or some are named although all are included.
    pub fn new(ids: Vec<UserId>, prefixes: Vec<UserPrefix>, all: bool) -> Result<Self, FieldError> {
        if ids.len().saturating_add(prefixes.len()) > MAX_USERS {
            return Err(FieldError::TooLong { limit: MAX_USERS, unit: "users and prefixes" });
        }
        if all && !(ids.is_empty() && prefixes.is_empty()) {
            return Err(FieldError::Rule("names users although all_users is set"));
        }
        Ok(Self { ids: distinct(ids), prefixes: distinct(prefixes), all })
    }

    /// Returns whether it includes nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.ids.is_empty() && self.prefixes.is_empty()
    }

    /// Returns whether it includes everybody.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.all
    }

    /// Iterates over the ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(UserId::as_str)
    }

    /// Iterates over the beginnings of ids.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().map(UserPrefix::as_str)
    }

    /// Returns whether it includes a user.
    #[must_use]
    pub fn include(&self, user: &UserId) -> bool {
        self.ids.contains(user) || self.includes_all_of(user.as_str())
    }

    /// Returns whether it includes every user whom `other` includes. Ids never add up to a prefix.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        (self.all || !other.all)
            && other.ids.iter().all(|user| self.include(user))
            && other.prefixes().all(|prefix| self.includes_all_of(prefix))
    }

    /// Returns whether it includes nobody but this user.
    #[must_use]
    pub fn are_only(&self, user: &UserId) -> bool {
        !self.all && self.prefixes.is_empty() && self.ids.iter().all(|id| id == user)
    }

    fn includes_all_of(&self, beginning: &str) -> bool {
        self.all || self.prefixes().any(|prefix| beginning.starts_with(prefix))
    }
}

fn distinct<T: PartialEq>(given: Vec<T>) -> Box<[T]> {
    let mut values: Vec<T> = Vec::with_capacity(given.len());
    for value in given {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values.into()
}
