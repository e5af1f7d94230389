//! The rule that an installation keeps a root token: after ending the last one by mistake, no call can
//! create another. Called by the store's transactions that end tokens or shorten their lives.

use time::{Duration, OffsetDateTime};

use super::{ReservedScope, Token};

/// How long another root token must remain active after a change to one: time to notice, and to create
/// one.
pub const ROOT_MARGIN: Duration = Duration::days(1);

/// What to do with a request that would leave the installation without an active root token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastRoot {
    /// Reject it.
    Refuse,
    /// Execute it: the caller has forced it, or has presented the token's secret.
    Allow,
}

impl LastRoot {
    /// Converts the `force` field of a request.
    #[must_use]
    pub const fn forced(force: bool) -> Self {
        if force { Self::Allow } else { Self::Refuse }
    }
}

/// The error of a request that would leave the installation without an active root token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "without it no root token is active for another 24 hours, and no call can create one: create another \
     root token first, or force this; when none is active, `tokend bootstrap`, run with the server's \
     database and keyring, creates one"
)]
pub struct LastRootError;

/// Returns whether a token has the scope `tokend:root`.
#[must_use]
pub fn is_root(token: &Token) -> bool {
    token.scopes.iter().any(|scope| scope.as_str() == ReservedScope::Root.word())
}

/// Returns whether root tokens would be missing: whether those that are `left` expire before those that
/// are `lost` would, and within the margin. Both are the latest expiration, capped at the end of the
/// margin; `None`: there are none.
#[must_use]
pub fn is_missed(
    lost: Option<OffsetDateTime>,
    left: Option<OffsetDateTime>,
    heir: Option<&Token>,
    now: OffsetDateTime,
) -> bool {
    let margin = now.saturating_add(ROOT_MARGIN);
    let inherited =
        heir.filter(|heir| is_root(heir)).map(|heir| heir.expire_time.map_or(margin, |end| end.min(margin)));
    left.max(inherited) < lost
}
