//! Every error that an RPC can fail with, before it becomes a status. The integrations that are not
//! RPCs use the same errors.

use crate::admission::fair_limiter::Refused;
use crate::admission::response_memory::ResponseMemoryError;
use crate::auth::callers::Unauthenticated;
use crate::auth::logins::ExchangeError;
use crate::changefeed::hub::WatchError;
use crate::domain::{AccessError, Violations};
use crate::runtime::panics::Panicked;
use crate::tokens::ActionError;
use crate::verify::{AuthenticateError, VerdictError};

/// Why an RPC fails.
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
    Undetermined(#[from] VerdictError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    ResponseMemory(#[from] ResponseMemoryError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Exchange(ExchangeError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

impl From<Violations> for CallError {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<ExchangeError> for CallError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Invalid => Self::Exchange(error),
            ExchangeError::Credential(error) => AuthenticateError::from(error).into(),
            ExchangeError::Undetermined(error) => error.into(),
            ExchangeError::Refused(refused) => refused.into(),
        }
    }
}

impl From<Unauthenticated> for CallError {
    fn from(error: Unauthenticated) -> Self {
        match error {
            Unauthenticated::Credential(error) => error.into(),
            Unauthenticated::Throttled(refused) => refused.into(),
        }
    }
}
