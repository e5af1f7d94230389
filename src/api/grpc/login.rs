//! The service that signs programs in by the console. No call needs a caller: a code and its verifier are all that
//! counts, and guesses at codes are slowed like guesses at secrets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use secrecy::ExposeSecret as _;
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument as _, Span, field};

use super::call::{MAX_ANSWER, conclude, timeout, traceparent};
use super::reserved_body::ResponseReservation;
use super::server::login_service_server::{LoginService, LoginServiceServer};
use super::token_api::TokenApi;
use crate::admission::fair_limiter::Refused;
use crate::api::error::CallError;
use crate::api::limits::MAX_REQUEST_BYTES;
use crate::api::proto::{
    ExchangeLoginCodeRequest, ExchangeLoginCodeResponse, GetLoginPageRequest, GetLoginPageResponse,
};
use crate::auth::logins::ExchangeError;
use crate::auth::peer::Peer;
use crate::auth::sessions::Sessions;
use crate::domain::audit_context::{self, Acting, AuditContext};
use crate::domain::{FieldError, Violations};
use crate::metrics::Rpc;
use crate::runtime::{deadline, panics};
use crate::secret::{CodeVerifier, LinkCode};
use crate::tokens::ActionError;
use crate::tokens::console_link::NoLink;
use crate::verify::ClientKey;

/// Serves `tokend.v1.LoginService`.
#[derive(Debug)]
pub struct LoginApi {
    /// The other service, with which it shares its state.
    pub api: Arc<TokenApi>,
    /// The sessions in which people allow logins.
    pub sessions: Arc<Sessions>,
}

impl LoginApi {
    /// Makes the service for tonic's router.
    #[must_use]
    pub fn server(self) -> LoginServiceServer<Self> {
        LoginServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Runs `work` for a client at this address inside the call's span, once memory for a response is reserved.
    async fn call<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        request: Request<M>,
        work: impl FnOnce(Option<IpAddr>, M) -> F + 'a,
    ) -> Result<Response<A>, Status>
    where
        M: 'a,
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let context = &self.api.context;
        let trace = context.sampling.context(traceparent(request.metadata().as_ref()));
        let (span, started) = (self.api.span(rpc, &trace), Instant::now());
        let limit = timeout(request.metadata().as_ref());
        let address = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let provenance = AuditContext { acting: Acting::Caller, trace_id: Some(trace.trace_id) };
        let work = async {
            let reservation = context.response_memory.reserve(ClientKey::peer(address), MAX_ANSWER);
            let outcome = panics::caught(async {
                let reservation = reservation?;
                Ok((work(address, request.into_inner()).await?, reservation))
            });
            let outcome: Result<(A, _), CallError> =
                outcome.await.unwrap_or_else(|panicked| Err(panicked.into()));
            let outcome = conclude(outcome, started, address);
            let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
            context.metrics.calls.answered(rpc, code.into(), started.elapsed());
            outcome
        };
        let work = audit_context::within(provenance, work);
        let (answer, reservation) =
            deadline::within(limit, Box::pin(work)).instrument(span).await?.into_inner();
        let mut response = Response::new(answer);
        response.extensions_mut().insert(ResponseReservation::Whole(reservation));
        Ok(response)
    }

    async fn exchange(
        &self,
        address: Option<IpAddr>,
        message: ExchangeLoginCodeRequest,
    ) -> Result<ExchangeLoginCodeResponse, CallError> {
        const VERIFIER: FieldError = FieldError::Rule("is not 43 to 128 characters of [A-Za-z0-9._~-]");
        let context = &self.api.context;
        let verifier = CodeVerifier::parse(&message.code_verifier);
        let verifier = verifier.ok_or_else(|| Violations::one("code_verifier", &VERIFIER))?;
        let exchanged = match LinkCode::parse(&message.code) {
            Some(code) => self.sessions.exchange(&code, &verifier, address).await,
            None => Err(ExchangeError::Invalid),
        };
        let (credential, request) = match exchanged {
            Ok(exchanged) => exchanged,
            Err(ExchangeError::Invalid) => {
                context.metrics.work.authentication_failed();
                if let Some(address) = address
                    && !context.callers.hold(address).await
                {
                    return Err(Refused::Full.into());
                }
                return Err(ExchangeError::Invalid.into());
            }
            Err(error) => return Err(error.into()),
        };
        let caller = credential.caller();
        Span::current().record("caller", field::display(&caller.principal));
        let _permit = context.call_permits.take(ClientKey::from(caller))?;
        let created = context.actions.create_login(caller, &request).await?;
        Span::current().record("token.id", field::display(created.token.id));
        Span::current().record("user.id", created.token.user_id.as_str());
        Ok(ExchangeLoginCodeResponse {
            token: Some((&created.token, created.now).into()),
            secret: created.secret.expose_secret().to_owned(),
        })
    }
}

#[tonic::async_trait]
impl LoginService for LoginApi {
    async fn get_login_page(
        &self,
        request: Request<GetLoginPageRequest>,
    ) -> Result<Response<GetLoginPageResponse>, Status> {
        self.call(Rpc::GetLoginPage, request, async |_, _| {
            let console = self.api.console.as_deref().ok_or(ActionError::from(NoLink::NotServed))?;
            Ok(GetLoginPageResponse { url: format!("{console}login") })
        })
        .await
    }

    async fn exchange_login_code(
        &self,
        request: Request<ExchangeLoginCodeRequest>,
    ) -> Result<Response<ExchangeLoginCodeResponse>, Status> {
        self.call(Rpc::ExchangeLoginCode, request, async |address, message| {
            self.exchange(address, message).await
        })
        .await
    }
}
