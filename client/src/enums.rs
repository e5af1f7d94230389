//! The contract's enums as types of this crate, which users may match on without knowing prost, and which may grow.
//! Read by whatever reads answers.

use crate::proto;

/// Defines an enum that has all values of the contract's but `Unspecified`; a value that is added there has to be added
/// here before this compiles.
macro_rules! of_the_contract {
    ($(#[$about:meta])* $name:ident, $prefix:literal { $($(#[$doc:meta])* $variant:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            pub(crate) fn read(value: proto::$name) -> Option<Self> {
                match value {
                    proto::$name::Unspecified => None,
                    $(proto::$name::$variant => Some(Self::$variant),)+
                }
            }

            /// Returns its name in the contract, without what all of them begin with.
            #[must_use]
            pub fn word(self) -> &'static str {
                let value = match self {
                    $(Self::$variant => proto::$name::$variant,)+
                };
                value.as_str_name().trim_start_matches($prefix)
            }
        }
    };
}

of_the_contract! {
    /// Why tokend refused a call.
    ErrorReason, "ERROR_REASON_" {
        /// There was no credential.
        CredentialMissing,
        /// The credential was not one secret.
        CredentialMalformed,
        /// The secret proves no token.
        CredentialInvalid,
        /// The caller's token has expired.
        CredentialExpired,
        /// The caller's token is revoked.
        CredentialRevoked,
        /// The caller's token is disabled.
        CredentialDisabled,
        /// The caller's token may not be used from where it was.
        CredentialIpNotAllowed,
        /// The caller's token lacks the scope that the call needs.
        ScopeMissing,
        /// The caller does not act in the organization that it named.
        OrganizationForbidden,
        /// The token has, or would have, more than the caller may give.
        PrivilegedToken,
        /// Fields are wrong; [`Error::violations`](crate::Error::violations) says which.
        InvalidField,
        /// The page token is of another list.
        InvalidPageToken,
        /// There is no such token within the caller's reach.
        TokenNotFound,
        /// The token is revoked, which is final.
        TokenRevoked,
        /// The token has expired, and is not revived.
        TokenExpired,
        /// The token was rotated already; [`Error::token_id`](crate::Error::token_id) is the one in its place.
        TokenRotated,
        /// The token is disabled.
        TokenDisabled,
        /// The request id was used for another request.
        RequestIdReused,
        /// The secret cannot be shown again; [`Error::token_id`](crate::Error::token_id) is the token to revoke.
        RequestNotRepeatable,
        /// The organization's policy forbids it; [`Error::rule`](crate::Error::rule) says by which rule.
        PolicyForbids,
        /// No active root token would be left; the request can force it.
        LastRootToken,
        /// Changes behind the watcher's position may be gone.
        PositionTooOld,
        /// The watcher does not keep up.
        WatcherTooSlow,
        /// The caller has as much under way as is left to all others.
        CallerOverShare,
        /// The database cannot be asked now.
        DatabaseUnavailable,
        /// Too much is under way.
        Overloaded,
        /// This replica is shutting down.
        ShuttingDown,
        /// A fault of tokend's; its log says more.
        Internal,
    }
}

of_the_contract! {
    /// What happened to a token, as a watch tells it.
    ChangeKind, "CHANGE_KIND_" {
        /// It was created.
        Created,
        /// Its fields were changed.
        Updated,
        /// A successor was made for it.
        Rotated,
        /// It was revoked.
        Revoked,
        /// It is no longer there.
        Deleted,
        /// It will expire soon.
        ExpiresSoon,
        /// It was put out of use for a while.
        Disabled,
        /// It was taken into use again.
        Enabled,
        /// Something else, also what is newer than this client: ask again for what depends on the token.
        Other,
    }
}

of_the_contract! {
    /// What happened to a token, as the audit log has it.
    TokenEventKind, "TOKEN_EVENT_KIND_" {
        /// It was created.
        Created,
        /// Its fields were changed.
        Updated,
        /// A successor was made for it.
        Rotated,
        /// It was revoked.
        Revoked,
        /// It will expire soon.
        ExpiresSoon,
        /// It was deleted, long after its end.
        Purged,
        /// It was put out of use for a while.
        Disabled,
        /// It was taken into use again.
        Enabled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_contract() {
        assert_eq!(ErrorReason::TokenNotFound.word(), "TOKEN_NOT_FOUND");
        assert_eq!(ChangeKind::ExpiresSoon.word(), "EXPIRES_SOON");
        assert_eq!(TokenEventKind::Purged.word(), "PURGED");
    }
}
