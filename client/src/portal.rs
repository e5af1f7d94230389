//! Portal sessions: a backend opens the console for a user whom it has signed in.

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;
use tokend_core::domain::Scopes;

use crate::client::Client;
use crate::error::Error;
use crate::proto;
use crate::retry::Repeatable;
use crate::token::{duration, texts, time};

/// A portal session to open.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewPortalSession {
    /// The organization of the user; `None`: the caller's own, or `default` for a root caller.
    pub organization_id: Option<String>,
    /// The user, a person whom the caller has signed in.
    pub user_id: String,
    /// The scopes of tokens that may be issued in the session; a pattern allows all scopes that it covers.
    pub scopes: Scopes,
    /// How long it lasts, at most 15 minutes; `None`: 15 minutes.
    pub ttl: Option<Duration>,
}

/// A link to a portal session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PortalLink {
    /// The link, with the code that signs in as the user: for the user's browser alone.
    pub url: SecretString,
    /// When it can no longer be used.
    pub link_expire_time: OffsetDateTime,
    /// When the session is over.
    pub session_expire_time: OffsetDateTime,
}

impl NewPortalSession {
    /// A session of a user in the caller's own organization, in which tokens with these scopes may be issued.
    #[must_use]
    pub fn new(user_id: impl Into<String>, scopes: Scopes) -> Self {
        Self { organization_id: None, user_id: user_id.into(), scopes, ttl: None }
    }
}

impl Client {
    /// Makes a link that opens the console for a user whom the caller has signed in, once and within a minute, to manage
    /// the user's own tokens. A repeat makes another one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_portal_session(&self, session: &NewPortalSession) -> Result<PortalLink, Error> {
        let message = proto::CreatePortalSessionRequest {
            organization_id: session.organization_id.clone().unwrap_or_default(),
            user_id: session.user_id.clone(),
            scopes: texts(&session.scopes),
            ttl: session.ttl.map(duration),
        };
        let made = self
            .run(Repeatable::Yes, message, |mut raw, request| async move {
                raw.create_portal_session(request).await
            })
            .await?;
        let link_end = time("link_expire_time", made.link_expire_time)?;
        let session_end = time("session_expire_time", made.session_expire_time)?;
        Ok(PortalLink {
            url: made.url.into(),
            link_expire_time: link_end.ok_or_else(|| Error::invalid_response("link_expire_time"))?,
            session_expire_time: session_end.ok_or_else(|| Error::invalid_response("session_expire_time"))?,
        })
    }

    /// Ends all portal sessions of a user and their unused links. Returns how many this call ended.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke_portal_sessions(
        &self,
        organization_id: Option<&str>,
        user_id: &str,
    ) -> Result<u64, Error> {
        let message = proto::RevokePortalSessionsRequest {
            organization_id: organization_id.unwrap_or_default().to_owned(),
            user_id: user_id.to_owned(),
        };
        let done = self
            .run(Repeatable::Yes, message, |mut raw, request| async move {
                raw.revoke_portal_sessions(request).await
            })
            .await?;
        u64::try_from(done.revoked_count).map_err(|_| Error::invalid_response("revoked_count"))
    }
}
