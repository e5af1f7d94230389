//! Sessions of persons: opened with a token's secret or a link, then authenticated by the key in a cookie. A session has no
//! rights of its own: its token is judged by the engine at every request. Called by the console; knows no
//! cookies and no pages.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::admission::fair_limiter::Refused;
use crate::admission::fair_queue::FairQueue;
use crate::clock;
use crate::domain::session::Session;
use crate::domain::{CredentialError, Principal};
use crate::secret::{LinkCode, SessionKey, TokenId};
use crate::store::{Store, StoreError, Which};
use crate::verify::{AuthenticateError, ClientKey, Credential, Engine, VerdictError};

/// How many sessions are looked up at once: a client that makes up cookies leaves Postgres to others.
const MAX_LOOKUPS: usize = 4;

/// As [`SessionError::Over`], of a portal session.
const PORTAL_OVER: SessionError = SessionError::Credential(CredentialError::PortalOver);

/// Why a request belongs to no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no session with this key.
    #[error("there is no such session")]
    NoSession,
    /// It was idle for too long, or is too old.
    #[error("the session is over")]
    Over,
    /// Its token is no longer accepted; the session has ended, unless the token may be accepted again.
    #[error(transparent)]
    Credential(CredentialError),
    /// It is not known whether there is one, or whether its token is still accepted.
    #[error(transparent)]
    Undetermined(#[from] VerdictError),
    /// Too many requests wait to be authenticated.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::Undetermined(error.into())
    }
}

/// A request that belongs to a session.
#[derive(Debug)]
pub struct AuthenticatedSession {
    /// The session.
    pub session: Session,
    /// Its token's credential, judged just now.
    pub credential: Credential,
    /// The database's time.
    pub now: OffsetDateTime,
}

/// The sessions of an installation.
#[derive(Debug)]
pub struct Sessions {
    pub(super) store: Store,
    pub(super) engine: Arc<Engine>,
    pub(super) lookups: FairQueue<ClientKey>,
}

impl Sessions {
    /// Keeps sessions in this store, and has their tokens judged by this engine.
    #[must_use]
    pub fn new(store: Store, engine: Arc<Engine>) -> Self {
        Self { store, engine, lookups: FairQueue::new(MAX_LOOKUPS) }
    }

    /// Opens a session for a credential whose secret has just been proven, or whose link was used. Returns its key;
    /// `None` if the credential is not a token.
    ///
    /// # Errors
    /// [`SessionError`]: it could not be stored, or there was no randomness.
    pub async fn open(
        &self,
        credential: &Credential,
        by_link: bool,
        address: Option<IpAddr>,
    ) -> Result<Option<SessionKey>, SessionError> {
        let Principal::Token(token_id) = credential.caller().principal else { return Ok(None) };
        let Ok(key) = SessionKey::generate(&mut clock::randomness()) else {
            return Err(SessionError::Refused(Refused::Full));
        };
        let opened = (by_link, address);
        self.store.open_session(&key.hash(), clock::random_uuid(), token_id, opened).await?;
        Ok(Some(key))
    }

    /// Opens a portal session by its link, which was looked at. Returns its key; `None`: the link was used, or has expired
    /// since.
    ///
    /// # Errors
    /// [`SessionError`]: it could not be stored, or there was no randomness.
    pub async fn open_portal(
        &self,
        code: &LinkCode,
        address: Option<IpAddr>,
    ) -> Result<Option<SessionKey>, SessionError> {
        let Ok(key) = SessionKey::generate(&mut clock::randomness()) else {
            return Err(SessionError::Refused(Refused::Full));
        };
        let session = (&key.hash(), clock::random_uuid());
        let opened = self.store.open_portal(&code.hash(), session, address).await?;
        Ok(opened.then_some(key))
    }

    /// Recognises a request from `address` by its session's key, and records it as a use of the session.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn authenticate_presented(
        &self,
        key: &SessionKey,
        address: Option<IpAddr>,
    ) -> Result<AuthenticatedSession, SessionError> {
        let authenticated = self.authenticate_unused(key, address).await?;
        if authenticated.session.is_due(authenticated.now) {
            self.store.use_session(authenticated.session.id, authenticated.now).await?;
        }
        Ok(authenticated)
    }

    /// Recognises a request that no person has made: it is no use of the session.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn authenticate_unused(
        &self,
        key: &SessionKey,
        address: Option<IpAddr>,
    ) -> Result<AuthenticatedSession, SessionError> {
        let hash = key.hash();
        let lookup = self.lookups.acquire(ClientKey::peer(address)).await?;
        let found = self.store.find_session(&hash).await?;
        drop(lookup);
        let (session, now) = found.ok_or(SessionError::NoSession)?;
        if session.is_over(now) {
            self.store.end_session(&hash).await?;
            return Err(session.portal.map_or(SessionError::Over, |_| PORTAL_OVER));
        }
        if let Some(portal) = session.as_portal() {
            return match self.engine.authenticate_portal(portal, address).await {
                Ok(credential) => Ok(AuthenticatedSession { session, credential, now }),
                Err(AuthenticateError::Undetermined(error)) => Err(error.into()),
                Err(AuthenticateError::Credential(_)) => {
                    self.store.end_session(&hash).await?;
                    Err(PORTAL_OVER)
                }
            };
        }
        let credential = match self.engine.authenticate_again(session.token_id, address).await {
            Ok(credential) => credential,
            Err(AuthenticateError::Undetermined(error)) => return Err(error.into()),
            Err(AuthenticateError::Credential(error)) => {
                if !may_return(error) {
                    self.store.end_session(&hash).await?;
                }
                return Err(SessionError::Credential(error));
            }
        };
        Ok(AuthenticatedSession { session, credential, now })
    }

    /// Records that a session's secret was proven again at `now`.
    ///
    /// # Errors
    /// [`SessionError`]: it could not be recorded.
    pub async fn prove(&self, session: &Session, now: OffsetDateTime) -> Result<(), SessionError> {
        Ok(self.store.prove_session(session.id, now).await?)
    }

    /// Returns whether a session is neither over nor ended. Does not count as a use of it.
    ///
    /// # Errors
    /// [`SessionError`]: it is not known.
    pub async fn lasts(&self, key: &SessionKey) -> Result<bool, SessionError> {
        let found = self.store.find_session(&key.hash()).await?;
        Ok(found.is_some_and(|(session, now)| !session.is_over(now)))
    }

    /// Lists the sessions of a token, the most recently used first.
    ///
    /// # Errors
    /// [`SessionError`]: they could not be read.
    pub async fn all_of(&self, id: TokenId, now: OffsetDateTime) -> Result<Vec<Session>, SessionError> {
        Ok(self.store.list_sessions(id, now).await?)
    }

    /// Ends sessions of a token.
    ///
    /// # Errors
    /// [`SessionError`]: they could not be ended.
    pub async fn end_some(&self, id: TokenId, which: Which) -> Result<u64, SessionError> {
        Ok(self.store.end_sessions(id, which).await?)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`SessionError`]: it could not be ended.
    pub async fn end(&self, key: &SessionKey) -> Result<(), SessionError> {
        Ok(self.store.end_session(&key.hash()).await?)
    }
}

/// Returns whether a token that is refused for this may be accepted later: when it is enabled, or from another
/// address.
fn may_return(error: CredentialError) -> bool {
    matches!(error, CredentialError::Disabled | CredentialError::IpNotAllowed)
}
