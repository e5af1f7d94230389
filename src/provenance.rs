//! On whose behalf, and within which trace, the work of a call is done: set by the gRPC face once a call, read
//! where the audit log is written. Goes along with the call's own task, as its deadline does.

use crate::domain::{FieldError, UserId};
use crate::telemetry::TraceId;

/// What the audit log says of a call beside its caller.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// The person that the caller acts for, as the caller says.
    pub acting_user: Option<ActingUser>,
    /// The call's trace; `None` where there is no call.
    pub trace_id: Option<TraceId>,
}

/// The person that a frontend acts for: 1 to 200 bytes, no control characters, as a user's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActingUser(UserId);

impl ActingUser {
    /// Accepts a text within the limits.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        UserId::parse(text).map(Self)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

tokio::task_local! {
    static CURRENT: Provenance;
}

/// Does `work` as that of a call.
pub async fn within<T>(provenance: Provenance, work: impl Future<Output = T>) -> T {
    CURRENT.scope(provenance, work).await
}

/// Returns what is known of the call whose work this is; nothing outside of one.
#[must_use]
pub fn current() -> Provenance {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}
