//! The contract's enums as types of this crate, which users can match without knowing prost, and
//! which may grow. Used by everything that reads responses.

use crate::proto;

/// Defines an enum with all values of the contract's except `Unspecified`; this does not compile
/// until a value added to the contract is added here.
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

            /// Returns the contract's value.
            pub(crate) fn value(self) -> proto::$name {
                match self {
                    $(Self::$variant => proto::$name::$variant,)+
                }
            }

            /// Returns its name in the contract, without the enum's prefix.
            #[must_use]
            pub fn word(self) -> &'static str {
                self.value().as_str_name().trim_start_matches($prefix)
            }
        }
    };
}

of_the_contract! {
    /// Why tokend refused a call.
    ErrorReason, "ERROR_REASON_" {
        /// There was no credential.
        CredentialMissing,
        /// The credential was not a single well-formed secret.
        CredentialMalformed,
        /// The secret proves no token.
        CredentialInvalid,
        /// The caller's token has expired.
        CredentialExpired,
        /// The caller's token is revoked.
        CredentialRevoked,
        /// The caller's token is disabled.
        CredentialDisabled,
        /// The caller's token may not be used from this address.
        CredentialIpNotAllowed,
        /// The caller's token lacks the scope for this call.
        ScopeMissing,
        /// The token is beyond what a caller with `tokend:self` or with a grant may issue.
        GrantExceeded,
        /// The caller may not act in the organization that it named.
        OrganizationForbidden,
        /// The token has, or would get, more rights than the caller may issue.
        PrivilegedToken,
        /// Fields are invalid; [`Error::violations`](crate::Error::violations) lists them.
        InvalidField,
        /// The page token belongs to another list.
        InvalidPageToken,
        /// The caller can reach no such token.
        TokenNotFound,
        /// The token is revoked, which is final.
        TokenRevoked,
        /// The token has expired, and cannot be revived.
        TokenExpired,
        /// The token was rotated already; [`Error::token_id`](crate::Error::token_id) is its successor.
        TokenRotated,
        /// The token is disabled.
        TokenDisabled,
        /// The request id was used for a different request.
        RequestIdReused,
        /// The secret cannot be shown again; [`Error::token_id`](crate::Error::token_id) is the token to revoke.
        RequestNotRepeatable,
        /// The organization's policy forbids it; [`Error::rule`](crate::Error::rule) is the rule.
        PolicyForbids,
        /// No active root token would be left; the request can force it.
        LastRootToken,
        /// The user is disabled: no token is created or rotated for them.
        UserDisabled,
        /// No link to the console can be made: the replica serves none, or the caller is a certificate.
        ConsoleLinkUnavailable,
        /// The code of a login was used, has expired, or is of another login.
        LoginCodeInvalid,
        /// The organization has no such plan.
        PlanNotFound,
        /// Tokens that have not ended name the plan.
        PlanInUse,
        /// Changes after the watcher's position may have been deleted.
        PositionTooOld,
        /// The watcher reads too slowly.
        WatcherTooSlow,
        /// The caller is over its share: it has as many calls running as are left to all others.
        CallerOverShare,
        /// The database cannot be reached now.
        DatabaseUnavailable,
        /// Too many calls are running.
        Overloaded,
        /// This replica is shutting down.
        ShuttingDown,
        /// A fault of tokend; its log has details.
        Internal,
        /// The token has no limit with this name.
        LimitNotFound,
    }
}

of_the_contract! {
    /// What a limit counts.
    LimitKind, "LIMIT_KIND_" {
        /// Requests per period.
        Rate,
        /// A balance of credits.
        Credits,
    }
}

of_the_contract! {
    /// What happened to a token, as a watch reports it.
    ChangeKind, "CHANGE_KIND_" {
        /// It was created.
        Created,
        /// Its fields were changed.
        Updated,
        /// It was rotated: it has a successor.
        Rotated,
        /// It was revoked.
        Revoked,
        /// It no longer exists.
        Deleted,
        /// It will expire soon.
        ExpiresSoon,
        /// It was disabled.
        Disabled,
        /// It was enabled again.
        Enabled,
        /// Anything else, also a kind that is newer than this client: ask again for what depends on
        /// the token.
        Other,
    }
}

of_the_contract! {
    /// What happened to a token, as the audit log records it.
    TokenEventKind, "TOKEN_EVENT_KIND_" {
        /// It was created.
        Created,
        /// Its fields were changed.
        Updated,
        /// It was rotated: it has a successor.
        Rotated,
        /// It was revoked.
        Revoked,
        /// It will expire soon.
        ExpiresSoon,
        /// It was deleted, long after its end.
        Purged,
        /// It was disabled.
        Disabled,
        /// It was enabled again.
        Enabled,
        /// The user was disabled.
        UserDisabled,
        /// The user was enabled again.
        UserEnabled,
    }
}

of_the_contract! {
    /// How the person behind an event is known.
    Attribution, "ATTRIBUTION_" {
        /// By a credential of the person's own.
        Proven,
        /// By a portal session of the person, for which the actor vouches.
        Vouched,
        /// The caller said so, and nobody else.
        Claimed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enum_words_match_the_contract() {
        assert_eq!(ErrorReason::TokenNotFound.word(), "TOKEN_NOT_FOUND");
        assert_eq!(ChangeKind::ExpiresSoon.word(), "EXPIRES_SOON");
        assert_eq!(TokenEventKind::Purged.word(), "PURGED");
    }
}
