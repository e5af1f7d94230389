//! Everything that can keep an RPC from being answered, before it becomes a status. The ways in
//! that are no RPCs refuse with the same errors.

use crate::actions::ActionError;
use crate::domain::{AccessError, Violations};
use crate::panics::Panicked;
use crate::shares::Refused;
use crate::unread::UnreadError;
use crate::verify::{AuthenticateError, Unknown};
use crate::watch::WatchError;

/// Why an RPC is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Authenticate(#[from] AuthenticateError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the request has fields that are not valid")]
    Invalid(Violations),
    #[error(transparent)]
    Action(#[from] ActionError),
    #[error(transparent)]
    Unknown(#[from] Unknown),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Unread(#[from] UnreadError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl From<Violations> for CallError {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}
