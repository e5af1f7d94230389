//! The rule that an installation keeps a root token: who ends the last one by mistake can make no other by any call.
//! Asked by the store's transactions that end tokens or shorten their lives.

use time::{Duration, OffsetDateTime};

use super::{ReservedScope, Token};

/// For how long a root token must still be active after what is done to another one: time to notice, and to make one.
pub const ROOT_MARGIN: Duration = Duration::days(1);

/// What becomes of a request that would leave the installation without an active root token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastRoot {
    /// It is refused.
    Kept,
    /// It is done: whoever asks has said so, or has shown the token's secret.
    Ended,
}

impl LastRoot {
    /// Reads the `force` of a request.
    #[must_use]
    pub const fn forced(force: bool) -> Self {
        if force { Self::Ended } else { Self::Kept }
    }
}

/// Says that a request would leave the installation without an active root token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "without it no root token is active for another 24 hours, and no call can make one: make another one first, or \
     force this; once none is active, `tokend bootstrap`, run with the server's database and keyring, makes one"
)]
pub struct LastRootError;

/// Tells whether this is a token of `tokend:root`.
#[must_use]
pub fn is_root(token: &Token) -> bool {
    token.scopes.iter().any(|scope| scope.as_str() == ReservedScope::Root.word())
}

/// Tells whether root tokens are missed: whether those that are `left` end before those that are `lost` would have, and
/// within the margin. Both are the latest end, at most the end of the margin; `None`: there are none.
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
