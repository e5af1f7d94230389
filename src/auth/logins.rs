//! Logins of programs: a code is made where a person allows one in the console, and exchanged once by the program that
//! asked. The session's token is judged anew then, from the address of the program. Called by the console and by the
//! exchange.

use std::net::IpAddr;

use super::sessions::{SessionError, Sessions};
use crate::admission::fair_limiter::Refused;
use crate::clock;
use crate::domain::CredentialError;
use crate::domain::login::LoginRequest;
use crate::domain::session::Session;
use crate::secret::{CodeChallenge, CodeVerifier, LinkCode};
use crate::store::StoreError;
use crate::verify::{AuthenticateError, ClientKey, Credential, VerdictError};

/// Why a code is not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// There is no such code, or it is not for this program.
    #[error(
        "the code is not valid: it was used, has expired, is of another login, or its session has ended; log in again"
    )]
    Invalid,
    /// The token of the session is not accepted.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// It is not known.
    #[error(transparent)]
    Undetermined(#[from] VerdictError),
    /// Too many wait.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<StoreError> for ExchangeError {
    fn from(error: StoreError) -> Self {
        Self::Undetermined(error.into())
    }
}

impl From<AuthenticateError> for ExchangeError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Credential(error) => error.into(),
            AuthenticateError::Undetermined(error) => error.into(),
        }
    }
}

impl Sessions {
    /// Makes the code of a login that a person allows in this session.
    ///
    /// # Errors
    /// [`SessionError`]: it could not be stored, or there was no randomness.
    pub async fn allow_login(
        &self,
        session: &Session,
        challenge: &CodeChallenge,
        request: &LoginRequest,
    ) -> Result<LinkCode, SessionError> {
        let Ok(code) = LinkCode::generate(&mut clock::randomness()) else {
            return Err(SessionError::Refused(Refused::Full));
        };
        self.store.add_login_code(&code.hash(), session.id, (challenge, request)).await?;
        Ok(code)
    }

    /// Exchanges a code for the credential of its session, and what was allowed. One attempt uses it up.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn exchange(
        &self,
        code: &LinkCode,
        verifier: &CodeVerifier,
        address: Option<IpAddr>,
    ) -> Result<(Credential, LoginRequest), ExchangeError> {
        let lookup = self.lookups.acquire(ClientKey::peer(address)).await?;
        let taken = self.store.take_login_code(&code.hash()).await?;
        drop(lookup);
        let (taken, now) = taken.ok_or(ExchangeError::Invalid)?;
        if !taken.challenge.is_of(verifier) || taken.expire_time <= now || taken.session.is_over(now) {
            return Err(ExchangeError::Invalid);
        }
        let credential = self.engine.authenticate_again(taken.session.token_id, address).await?;
        Ok((credential, taken.request))
    }
}
