//! Signing a program in by the console: where a person allows it, and the exchange of the code that it gets. Needs no
//! caller.

use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Request, Response, Status};

use crate::client::Client;
use crate::error::Error;
use crate::proto;
use crate::proto::login_service_client::LoginServiceClient;
use crate::requests::CreatedToken;
use crate::retry::Repeatable;
use crate::token::status;

type RawLogin = LoginServiceClient<tonic::transport::Channel>;

impl Client {
    /// Returns the address of the console's page on which a person allows a program. What to add to it is in the contract.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn login_page(&self) -> Result<String, Error> {
        let message = proto::GetLoginPageRequest {};
        let page = self.log_in(Repeatable::Yes, message, |mut raw, request| async move {
            raw.get_login_page(request).await
        });
        Ok(page.await?.url)
    }

    /// Exchanges a code and its verifier for a token. Never repeated: a code can be exchanged once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn exchange_login_code(
        &self,
        code: &SecretString,
        verifier: &SecretString,
    ) -> Result<CreatedToken, Error> {
        let message = proto::ExchangeLoginCodeRequest {
            code: code.expose_secret().to_owned(),
            code_verifier: verifier.expose_secret().to_owned(),
        };
        let made = self.log_in(Repeatable::No, message, |mut raw, request| async move {
            raw.exchange_login_code(request).await
        });
        let made = made.await?;
        Ok(CreatedToken { token: status(made.token)?.token, secret: made.secret.into() })
    }

    async fn log_in<M: Clone, R, F>(
        &self,
        repeatable: Repeatable,
        message: M,
        call: impl Fn(RawLogin, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let (channel, retries) = self.without_caller();
        let attempt = |left| {
            let mut request = Request::new(message.clone());
            request.set_timeout(left);
            let answer = call(LoginServiceClient::new(channel.clone()), request);
            async { answer.await.map(Response::into_inner).map_err(|status| Error::of(&status)) }
        };
        retries.run(repeatable, |_| false, attempt).await
    }
}
