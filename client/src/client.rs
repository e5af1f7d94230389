//! The calls about tokens, one method each; policies and the audit log have separate files. Every
//! call has a deadline; repeatable calls are retried while their outcome is unknown.

use std::sync::Arc;
use std::time::Duration;

use tokend_core::domain::FieldError;
use tokend_core::secret::TokenId;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::authorization::Authorization;
use crate::credential::{Credential, CurrentSecret};
use crate::error::{Error, ErrorKind};
#[cfg(any(feature = "guard", feature = "local"))]
use crate::outage::Outage;
use crate::pages::{Page, Pages};
use crate::proto;
use crate::proto::token_service_client::TokenServiceClient;
use crate::requests::{
    Changed, ConsoleLink, CreatedToken, EndOptions, Listing, NewToken, RevocationTarget, RevokedToken,
    Rotation, TokenUpdate,
};
use crate::retry::{Repeatable, Retries};
use crate::token::{TokenStatus, status, time, token};
use crate::verification::{Consistency, Verification, VerifyRequest};
use crate::watch::Changes;

/// The generated client, which adds the caller's credential to each call.
#[cfg_attr(not(feature = "raw"), expect(unreachable_pub, reason = "documented only with that feature"))]
pub type RawClient = TokenServiceClient<InterceptedService<Channel, Authorization>>;

/// A client of tokend. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    authorization: Authorization,
    credential: Option<Arc<Credential>>,
    retries: Retries,
    #[cfg(any(feature = "guard", feature = "local"))]
    outage: Arc<Outage>,
}

impl Client {
    pub(crate) fn new(channel: Channel, credential: Option<Arc<Credential>>, retries: Retries) -> Self {
        Self {
            channel,
            authorization: Authorization::of(credential.clone()),
            credential,
            retries,
            #[cfg(any(feature = "guard", feature = "local"))]
            outage: Arc::default(),
        }
    }

    /// Returns a client that acts for a user, whom the audit log records: 1 to 200 visible ASCII characters.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn acting_for(&self, user: &str) -> Result<Self, FieldError> {
        Ok(Self { authorization: self.authorization.acting_for(user)?, ..self.clone() })
    }

    /// Returns the generated client, for what the methods do not offer: calls without a deadline,
    /// or with other metadata. Its types are those of tonic and prost, and change with them.
    #[cfg(feature = "raw")]
    #[must_use]
    pub fn raw(&self) -> RawClient {
        self.generated()
    }

    pub(crate) fn generated(&self) -> RawClient {
        TokenServiceClient::with_interceptor(self.channel.clone(), self.authorization.clone())
    }

    /// Returns the channel without the caller's credential, for other services of the server, such
    /// as its health.
    #[cfg(feature = "raw")]
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Returns the channel without the caller's credential, and how its calls are retried.
    pub(crate) fn without_caller(&self) -> (Channel, Retries) {
        (self.channel.clone(), self.retries)
    }

    /// Returns the same caller over another client's connection.
    #[cfg(feature = "local")]
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self { channel: other.channel.clone(), ..self.clone() }
    }

    /// Returns the caller's current credential.
    pub(crate) fn current_secret(&self) -> Option<Arc<CurrentSecret>> {
        self.credential.as_ref().map(|credential| credential.current())
    }

    /// Returns whether an error is about a credential that has been replaced since.
    pub(crate) fn has_another(&self, error: &Error, used: Option<&Arc<CurrentSecret>>) -> bool {
        let (Some(credential), Some(used)) = (&self.credential, used) else { return false };
        error.kind() == ErrorKind::Unauthenticated && credential.differs_from(used)
    }

    /// Returns the record of failures that are reported to no caller.
    #[cfg(any(feature = "guard", feature = "local"))]
    pub(crate) fn outage(&self) -> &Outage {
        &self.outage
    }

    /// Returns the timeout of a call.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.retries.timeout
    }

    /// Judges a secret. Any text gets a verdict.
    ///
    /// # Errors
    /// The verdict is not known, or the caller may not ask.
    pub async fn verify(
        &self,
        request: &VerifyRequest<'_>,
        consistency: Consistency,
    ) -> Result<Verification, Error> {
        let message = request.message(consistency);
        self.run(self.retries.of_cost(request.cost), message, |mut raw, request| async move {
            raw.verify(request).await
        })
        .await?
        .try_into()
    }

    /// Creates a token.
    ///
    /// # Errors
    /// [`Error`]; the outcome is unknown only with [`crate::ErrorKind::DeadlineExceeded`] and
    /// [`crate::ErrorKind::Unavailable`].
    pub async fn create_token(&self, new: NewToken) -> Result<CreatedToken, Error> {
        let message = proto::CreateTokenRequest::from(new);
        let made = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.create_token(request).await });
        let made = made.await?;
        Ok(CreatedToken { token: status(made.token)?.token, secret: made.secret.into() })
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_token(&self, id: TokenId) -> Result<TokenStatus, Error> {
        let message = proto::GetTokenRequest { token_id: id.to_string() };
        let found = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.get_token(request).await });
        status(found.await?.token)
    }

    /// Reads a page of tokens: the first, or the one after a previous page.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_tokens(
        &self,
        listing: &Listing,
        after: Option<&str>,
    ) -> Result<Page<TokenStatus>, Error> {
        let message = listing.request(after);
        let page = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.list_tokens(request).await });
        let page = page.await?;
        Page::read(page.tokens, page.next_page_token, |found| status(Some(found)))
    }

    /// Reads tokens, page by page.
    #[must_use]
    pub fn token_pages(&self, listing: &Listing) -> Pages<TokenStatus> {
        let (client, listing) = (self.clone(), listing.clone());
        Pages::new(move |after| {
            let (client, listing) = (client.clone(), listing.clone());
            async move { client.list_tokens(&listing, after.as_deref()).await }
        })
    }

    /// Changes a token. Not retried automatically: it might undo another client's change.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update_token(&self, id: TokenId, update: TokenUpdate) -> Result<TokenStatus, Error> {
        let message = update.request(id);
        let updated = self
            .run(Repeatable::No, message, |mut raw, request| async move { raw.update_token(request).await });
        status(updated.await?.token)
    }

    /// Replaces a token by a new one.
    ///
    /// # Errors
    /// As for [`Self::create_token`].
    pub async fn rotate_token(&self, id: TokenId, rotation: Rotation) -> Result<CreatedToken, Error> {
        let message = rotation.request(id);
        let made = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.rotate_token(request).await });
        let made = made.await?;
        Ok(CreatedToken { token: status(made.token)?.token, secret: made.secret.into() })
    }

    /// Revokes a token, and the tokens rotated from it. A repeat returns the first revocation.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke_token(
        &self,
        target: RevocationTarget,
        options: impl Into<EndOptions>,
    ) -> Result<Changed<RevokedToken>, Error> {
        let (target, EndOptions { reason, force }) = (Some(target.into()), options.into());
        self.revoke(proto::RevokeTokenRequest { target, reason, only_this: false, force }).await
    }

    /// Revokes only this token: tokens rotated from it stay valid.
    ///
    /// # Errors
    /// As for [`Self::revoke_token`].
    pub async fn revoke_only_this_token(
        &self,
        target: RevocationTarget,
        options: impl Into<EndOptions>,
    ) -> Result<Changed<RevokedToken>, Error> {
        let (target, EndOptions { reason, force }) = (Some(target.into()), options.into());
        self.revoke(proto::RevokeTokenRequest { target, reason, only_this: true, force }).await
    }

    async fn revoke(&self, message: proto::RevokeTokenRequest) -> Result<Changed<RevokedToken>, Error> {
        let revoked = self
            .run(Repeatable::Yes, message, |mut raw, request| async move { raw.revoke_token(request).await });
        let revoked = revoked.await?;
        let shown = revoked.token.ok_or_else(|| Error::invalid_response("token"))?;
        let changed = RevokedToken {
            id: TokenId::parse(&shown.id).map_err(|_| Error::invalid_response("id"))?,
            revoke_time: time("revoke_time", shown.revoke_time)?,
            token: if shown.user_id.is_empty() { None } else { Some(token(shown)?) },
        };
        Ok(Changed { changed, effective_time: effective(revoked.effective_time)? })
    }

    /// Revokes all tokens of a user, a person; returns how many were revoked.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke_user_tokens(
        &self,
        organization_id: Option<&str>,
        user_id: &str,
        options: impl Into<EndOptions>,
    ) -> Result<Changed<u64>, Error> {
        let EndOptions { reason, force } = options.into();
        let message = proto::RevokeUserTokensRequest {
            organization_id: organization_id.unwrap_or_default().to_owned(),
            user_id: user_id.to_owned(),
            reason,
            force,
            owner_kind: proto::OwnerKind::User.into(),
        };
        let revoked =
            self.run(Repeatable::Yes, message, |mut raw, request| async move {
                raw.revoke_user_tokens(request).await
            })
            .await?;
        let changed =
            u64::try_from(revoked.revoked_count).map_err(|_| Error::invalid_response("revoked_count"))?;
        Ok(Changed { changed, effective_time: effective(revoked.effective_time)? })
    }

    /// Disables a token until it is enabled. Not retried automatically.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn disable_token(
        &self,
        id: TokenId,
        options: impl Into<EndOptions>,
    ) -> Result<Changed<TokenStatus>, Error> {
        let EndOptions { reason, force } = options.into();
        let message = proto::DisableTokenRequest { token_id: id.to_string(), force, reason };
        let done = self
            .run(Repeatable::No, message, |mut raw, request| async move { raw.disable_token(request).await })
            .await?;
        Ok(Changed { changed: status(done.token)?, effective_time: effective(done.effective_time)? })
    }

    /// Enables a disabled token. Not retried automatically.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enable_token(&self, id: TokenId) -> Result<Changed<TokenStatus>, Error> {
        let message = proto::EnableTokenRequest { token_id: id.to_string() };
        let done = self
            .run(Repeatable::No, message, |mut raw, request| async move { raw.enable_token(request).await })
            .await?;
        Ok(Changed { changed: status(done.token)?, effective_time: effective(done.effective_time)? })
    }

    /// Makes a link that signs a person in to the console as the caller, once and within a minute. As confidential
    /// as the caller's secret while it lasts. A repeat makes another one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_console_link(&self) -> Result<ConsoleLink, Error> {
        let message = proto::CreateConsoleLinkRequest {};
        let made = self
            .run(Repeatable::Yes, message, |mut raw, request| async move {
                raw.create_console_link(request).await
            })
            .await?;
        let expire_time =
            time("expire_time", made.expire_time)?.ok_or_else(|| Error::invalid_response("expire_time"))?;
        Ok(ConsoleLink { url: made.url.into(), expire_time })
    }

    /// Starts to watch changes: of an organization (`None`: of all that the caller can reach),
    /// after the position of an earlier message (`None`: from now on).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn watch_tokens(
        &self,
        organization_id: Option<&str>,
        after: Option<&str>,
    ) -> Result<Changes, Error> {
        let message = proto::WatchTokensRequest {
            organization_id: organization_id.unwrap_or_default().to_owned(),
            after: after.unwrap_or_default().to_owned(),
        };
        let mut raw = self.generated();
        let opened = tokio::time::timeout(self.retries.timeout, raw.watch_tokens(message)).await;
        let opened = opened.map_err(|_| Error::overdue())?.map_err(|status| Error::of(&status))?;
        Ok(Changes::new(opened.into_inner()))
    }

    /// Makes a call of the generated client with this client's deadline and retries: for plain
    /// messages, where the typed methods interpret too much.
    ///
    /// # Errors
    /// [`Error`].
    #[cfg(feature = "raw")]
    pub async fn call<M: Clone, R, F>(
        &self,
        repeatable: Repeatable,
        message: M,
        call: impl Fn(RawClient, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        self.run(repeatable, message, call).await
    }

    /// Returns whether a Verify whose answer was lost may be repeated.
    pub(crate) fn may_repeat(&self, request: &proto::VerifyRequest) -> bool {
        self.retries.of_cost(request.cost.unwrap_or(1)) == Repeatable::Yes
    }

    pub(crate) async fn run<M: Clone, R, F>(
        &self,
        repeatable: Repeatable,
        message: M,
        call: impl Fn(RawClient, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let attempt = |left| {
            let mut request = Request::new(message.clone());
            request.set_timeout(left);
            let answer = call(self.generated(), request);
            async { answer.await.map(tonic::Response::into_inner).map_err(|status| Error::of(&status)) }
        };
        let used = self.current_secret();
        self.retries.run(repeatable, |error| self.has_another(error, used.as_ref()), attempt).await
    }
}

/// Reads the time from which a change is effective everywhere, which is required.
pub(crate) fn effective(timestamp: Option<prost_types::Timestamp>) -> Result<time::OffsetDateTime, Error> {
    time("effective_time", timestamp)?.ok_or_else(|| Error::invalid_response("effective_time"))
}
