//! Signing in, or proving once more, by a link that a caller had made. Looking at a link changes nothing; using it
//! does so once. Its token is judged anew, as for every request of a session. Called by the console.

use std::net::IpAddr;

use time::OffsetDateTime;
use uuid::Uuid;

use super::sessions::{SessionError, Sessions};
use crate::admission::fair_limiter::Refused;
use crate::domain::session::{Link, PortalSession, Session};
use crate::domain::{CredentialError, Portal};
use crate::secret::LinkCode;
use crate::store::StoreError;
use crate::verify::{AuthenticateError, ClientKey, Credential};

/// Why a link signs nobody in.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no link with this code, or there was one long ago.
    #[error("there is no such link")]
    NoLink,
    /// Somebody signed in with it.
    #[error("the link was used")]
    Used,
    /// It was made more than a minute ago.
    #[error("the link has expired")]
    Expired,
    /// It is of another token than the session.
    #[error("the link is of another token")]
    OtherToken,
    /// Its token is not accepted.
    #[error(transparent)]
    Credential(CredentialError),
    /// It is not known.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<StoreError> for LinkError {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

impl From<Refused> for LinkError {
    fn from(refused: Refused) -> Self {
        Self::Session(refused.into())
    }
}

/// What a link is good for. One of the other kind is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It signs in as its token.
    SignIn,
    /// It opens a portal session.
    Portal,
}

impl Sessions {
    /// Looks at a link: returns the credential that it would sign in with from this address.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn look_at(&self, code: &LinkCode, address: Option<IpAddr>) -> Result<Credential, LinkError> {
        let link = self.usable(code, Kind::SignIn, address).await?;
        match self.engine.authenticate_again(link.token_id, address).await {
            Ok(credential) => Ok(credential),
            Err(AuthenticateError::Credential(error)) => Err(LinkError::Credential(error)),
            Err(AuthenticateError::Undetermined(error)) => Err(SessionError::from(error).into()),
        }
    }

    /// Looks at a link to a portal session: returns what that allows.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn look_at_portal(
        &self,
        code: &LinkCode,
        address: Option<IpAddr>,
    ) -> Result<PortalSession, LinkError> {
        let link = self.usable(code, Kind::Portal, address).await?;
        let portal = link.portal.ok_or(LinkError::NoLink)?;
        let terms = portal.terms.clone();
        let session = Portal { session_id: Uuid::nil(), token_id: link.token_id, terms };
        match self.engine.authenticate_portal(session, address).await {
            Ok(_) => Ok(portal),
            Err(AuthenticateError::Credential(error)) => Err(LinkError::Credential(error)),
            Err(AuthenticateError::Undetermined(error)) => Err(SessionError::from(error).into()),
        }
    }

    /// Returns why a link to a portal session could not be used.
    pub async fn unused_portal(&self, code: &LinkCode, address: Option<IpAddr>) -> LinkError {
        self.usable(code, Kind::Portal, address).await.err().unwrap_or(LinkError::Used)
    }

    /// Uses a link that was looked at.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn consume(&self, code: &LinkCode) -> Result<(), LinkError> {
        if self.store.consume_link(&code.hash()).await? {
            return Ok(());
        }
        // It was used or has expired since it was looked at.
        Err(self.usable(code, Kind::SignIn, None).await.err().unwrap_or(LinkError::Used))
    }

    /// Uses a link of the session's own token as the proof that is asked for once more, at `now`.
    ///
    /// # Errors
    /// [`LinkError`]; nothing was used if it is of another token.
    pub async fn prove_by_link(
        &self,
        session: &Session,
        code: &LinkCode,
        now: OffsetDateTime,
        address: Option<IpAddr>,
    ) -> Result<(), LinkError> {
        if self.usable(code, Kind::SignIn, address).await?.token_id != session.token_id {
            return Err(LinkError::OtherToken);
        }
        self.consume(code).await?;
        Ok(self.prove(session, now).await?)
    }

    async fn usable(&self, code: &LinkCode, kind: Kind, address: Option<IpAddr>) -> Result<Link, LinkError> {
        let _lookup = self.lookups.acquire(ClientKey::peer(address)).await?;
        let (link, now) = self.store.find_link(&code.hash()).await?.ok_or(LinkError::NoLink)?;
        if link.portal.is_some() != (kind == Kind::Portal) {
            return Err(LinkError::NoLink);
        }
        if link.consume_time.is_some() {
            Err(LinkError::Used)
        } else if link.expire_time <= now {
            Err(LinkError::Expired)
        } else {
            Ok(link)
        }
    }
}
