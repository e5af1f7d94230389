//! The service itself: each RPC authenticates its caller, reads its message, has the work done and writes
//! the answer. One span and at most one log line a call.

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span, field};

use super::error::CallError;
use super::proto::token_service_server::{TokenService, TokenServiceServer};
use super::proto::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
    RevokeTokenResponse, VerifyRequest, VerifyResponse,
};
use super::{MAX_REQUEST_BYTES, callers, convert, status};
use crate::actions::Actions;
use crate::ambient;
use crate::domain::{Caller, Permission};
use crate::verify::{Engine, Share};

/// Serves `tokend.v1.TokenService`.
#[derive(Debug)]
pub struct TokenApi {
    engine: Arc<Engine>,
    actions: Actions,
}

impl TokenApi {
    /// Makes the service for tonic's router.
    #[must_use]
    pub fn service(engine: Arc<Engine>, actions: Actions) -> TokenServiceServer<Self> {
        TokenServiceServer::new(Self { engine, actions }).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Authenticates the caller, then does `work`, inside the call's span.
    async fn call<'a, M, A, F>(
        &'a self,
        method: &'static str,
        request: Request<M>,
        work: impl FnOnce(Caller, M) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let span = tracing::info_span!(
            "rpc",
            rpc.method = method,
            call = format_args!("{:016x}", ambient::call_id()),
            caller = field::Empty,
            token.id = field::Empty,
            user.id = field::Empty,
            verdict = field::Empty,
        );
        let peer = request.remote_addr().map(|address| address.ip());
        let started = Instant::now();
        async {
            let (metadata, _, message) = request.into_parts();
            let outcome = match callers::authenticate(&self.engine, &metadata, peer).await {
                Ok(caller) => {
                    Span::current().record("caller", field::display(&caller.principal));
                    work(caller, message).await
                }
                Err(error) => Err(error.into()),
            };
            conclude(outcome, started)
        }
        .instrument(span)
        .await
    }
}

/// Turns the outcome into what tonic sends, and logs it: answers at debug, the caller's mistakes at info,
/// our own failures at warn with their causes.
fn conclude<A>(outcome: Result<A, CallError>, started: Instant) -> Result<Response<A>, Status> {
    let duration_ms = started.elapsed().as_secs_f64() * 1e3;
    outcome.map(Response::new).inspect(|_| tracing::debug!(duration_ms, "answered")).map_err(|error| {
        let status = Status::from(&error);
        let code = field::debug(status.code());
        if status::is_our_fault(&status) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(duration_ms, code, error, "failed");
        } else {
            tracing::info!(duration_ms, code, reason = %error, "refused");
        }
        status
    })
}

#[tonic::async_trait]
impl TokenService for TokenApi {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        self.call("CreateToken", request, async |caller, message| {
            caller.require(Permission::Write)?;
            let request = convert::create_request(message)?;
            let created = self.actions.create_token(&caller, request).await?;
            Span::current().record("token.id", field::display(created.token.id));
            Span::current().record("user.id", created.token.user_id.as_str());
            Ok(convert::create_response(&created))
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        self.call("ListTokens", request, async |caller, message| {
            caller.require(Permission::Read)?;
            let request = convert::list_request(message)?;
            Ok(convert::list_response(self.actions.list_tokens(&caller, request).await?))
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        self.call("RevokeToken", request, async |caller, message| {
            caller.require(Permission::Write)?;
            let (id, reason) = convert::revoke_request(&message)?;
            Span::current().record("token.id", field::display(id));
            let revoked = self.actions.revoke_token(&caller, id, &reason).await?;
            Span::current().record("user.id", revoked.token.user_id.as_str());
            Ok(convert::revoke_response(&revoked))
        })
        .await
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        self.call("Verify", request, async |caller, message| {
            caller.require(Permission::Verify)?;
            let required = convert::required_scopes(&message.required_scopes)?;
            let share = Share::Caller(caller.principal);
            let reach = caller.verify_reach();
            let answer = self.engine.verify(&message.secret, &required, &reach, share).await?;
            let response = convert::verify_response(answer);
            Span::current().record("verdict", response.verdict().as_str_name());
            if let Some(token) = &response.token {
                Span::current().record("token.id", token.id.as_str());
                Span::current().record("user.id", token.user_id.as_str());
            }
            Ok(response)
        })
        .await
    }
}
