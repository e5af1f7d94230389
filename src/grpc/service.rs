//! The service itself: each RPC authenticates its caller, reads its message, has the work done and writes
//! the answer. One span and at most one log line a call.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span, field};

use super::callers::Callers;
use super::convert::Wanted;
use super::error::CallError;
use super::proto::{
    CreateTokenRequest, CreateTokenResponse, GetTokenRequest, GetTokenResponse, ListTokensRequest,
    ListTokensResponse, RevokeTokenRequest, RevokeTokenResponse, UpdateTokenRequest, UpdateTokenResponse,
    VerifyRequest, VerifyStreamRequest,
};
use super::reply::VerifyReply;
use super::server::token_service_server::{TokenService, TokenServiceServer};
use super::stream::VerifyAnswers;
use super::{MAX_REQUEST_BYTES, convert, status};
use crate::actions::Actions;
use crate::ambient;
use crate::domain::{Caller, Permission};
use crate::metrics::{Metrics, Rpc};
use crate::verify::{Answer, AuthenticateError, Consistency, Credential, Engine, Question, Share};

/// Serves `tokend.v1.TokenService`.
#[derive(Debug)]
pub struct TokenApi {
    /// Knows secrets.
    pub engine: Arc<Engine>,
    /// Does the rest.
    pub actions: Actions,
    /// Knows who calls.
    pub callers: Callers,
    /// Counts calls.
    pub metrics: Arc<Metrics>,
    /// Turns true when the server begins to end.
    pub draining: watch::Receiver<bool>,
}

impl TokenApi {
    /// Makes the service for tonic's router.
    #[must_use]
    pub fn into_server(self) -> TokenServiceServer<Self> {
        TokenServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Authenticates the caller, then does `work`, inside the call's span.
    async fn call<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        request: Request<M>,
        work: impl FnOnce(Credential, M) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let span = span(rpc);
        let started = Instant::now();
        async {
            let outcome = match self.callers.authenticate(&self.engine, &request).await {
                Ok(credential) => {
                    Span::current().record("caller", field::display(&credential.caller().principal));
                    work(credential, request.into_inner()).await
                }
                Err(error) => {
                    if matches!(error, AuthenticateError::Credential(_)) {
                        self.metrics.work.authentication_failed();
                    }
                    Err(error.into())
                }
            };
            let outcome = conclude(outcome, started);
            let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
            self.metrics.calls.answered(rpc, code.into(), started.elapsed());
            outcome
        }
        .instrument(span)
        .await
    }
}

fn span(rpc: Rpc) -> Span {
    tracing::info_span!(
        "rpc",
        rpc.method = rpc.name(),
        call = format_args!("{:016x}", ambient::call_id()),
        caller = field::Empty,
        token.id = field::Empty,
        user.id = field::Empty,
        verdict = field::Empty,
    )
}

/// Turns the outcome into what tonic sends, and logs it: answers at debug.
fn conclude<A>(outcome: Result<A, CallError>, started: Instant) -> Result<Response<A>, Status> {
    let duration_ms = started.elapsed().as_secs_f64() * 1e3;
    outcome.map(Response::new).inspect(|_| tracing::debug!(duration_ms, "answered")).map_err(|error| {
        let status = Status::from(&error);
        status::log(&error, &status, Some(duration_ms));
        status
    })
}

/// Reads what Verify is asked, for a caller that may ask it.
pub(super) fn question(caller: &Caller, message: &VerifyRequest) -> Result<Wanted, CallError> {
    caller.require(Permission::Verify)?;
    Ok(convert::verify_request(message)?)
}

/// Returns what the engine is asked for a caller.
pub(super) fn asked_of<'a>(caller: &'a Caller, wanted: &'a Wanted) -> Question<'a> {
    Question {
        required: &wanted.required,
        reach: caller.verify_reach(),
        client_ip: wanted.client_ip,
        share: Share::Caller(caller.principal.clone()),
    }
}

/// Completes when the server begins to end.
pub async fn drained(mut draining: watch::Receiver<bool>) {
    // An error means that the server itself is gone.
    let _ = draining.wait_for(|begun| *begun).await;
}

impl TokenApi {
    /// Answers Verify from a fresh cache; `None` when that cannot tell, and where the answer would be logged.
    fn verify_now(&self, request: &Request<VerifyRequest>) -> Option<VerifyReply> {
        if tracing::enabled!(tracing::Level::DEBUG) {
            return None;
        }
        let credential = self.callers.authenticate_now(&self.engine, request)?;
        let message = request.get_ref();
        let wanted = question(credential.caller(), message).ok()?;
        if wanted.consistency == Consistency::Full {
            return None;
        }
        let question = asked_of(credential.caller(), &wanted);
        let answer = self.engine.verify_now(&message.secret, &question)?;
        self.metrics.calls.verdict(answer.verdict);
        Some(answer.into())
    }

    async fn verify_slowly(
        &self,
        credential: Credential,
        message: VerifyRequest,
    ) -> Result<Answer, CallError> {
        let caller = credential.caller();
        let wanted = question(caller, &message)?;
        let question = asked_of(caller, &wanted);
        let answer = self.engine.verify(&message.secret, &question, wanted.consistency).await?;
        self.metrics.calls.verdict(answer.verdict);
        Span::current().record("verdict", convert::verdict(answer.verdict).as_str_name());
        if let Some((cached, _)) = &answer.token {
            Span::current().record("token.id", field::display(cached.id));
        }
        Ok(answer)
    }
}

#[tonic::async_trait]
impl TokenService for TokenApi {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        self.call(Rpc::CreateToken, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Write)?;
            let request = convert::create_request(message)?;
            let created = self.actions.create_token(caller, request).await?;
            Span::current().record("token.id", field::display(created.token.id));
            Span::current().record("user.id", created.token.user_id.as_str());
            Ok(convert::create_response(&created))
        })
        .await
    }

    async fn get_token(
        &self,
        request: Request<GetTokenRequest>,
    ) -> Result<Response<GetTokenResponse>, Status> {
        self.call(Rpc::GetToken, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Read)?;
            let id = convert::get_request(&message)?;
            Span::current().record("token.id", field::display(id));
            let found = self.actions.get_token(caller, id).await?;
            Span::current().record("user.id", found.0.user_id.as_str());
            Ok(convert::get_response(&found))
        })
        .await
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        self.call(Rpc::ListTokens, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Read)?;
            let request = convert::list_request(message)?;
            Ok(convert::list_response(self.actions.list_tokens(caller, request).await?))
        })
        .await
    }

    async fn update_token(
        &self,
        request: Request<UpdateTokenRequest>,
    ) -> Result<Response<UpdateTokenResponse>, Status> {
        self.call(Rpc::UpdateToken, request, async |credential, message| {
            self.update(&credential, message).await
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        self.call(Rpc::RevokeToken, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Write)?;
            let (id, reason) = convert::revoke_request(&message)?;
            Span::current().record("token.id", field::display(id));
            // Held until the outcome is known, and let go also when the caller goes away before.
            let _forgetting = self.engine.forgetting(id);
            let revoked = self.actions.revoke_token(caller, id, &reason).await?;
            Span::current().record("user.id", revoked.token.user_id.as_str());
            Ok(convert::revoke_response(&revoked))
        })
        .await
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyReply>, Status> {
        let started = Instant::now();
        if let Some(reply) = self.verify_now(&request) {
            self.metrics.calls.answered(Rpc::Verify, Code::Ok.into(), started.elapsed());
            return Ok(Response::new(reply));
        }
        self.call(Rpc::Verify, request, async |credential, message| {
            Ok(self.verify_slowly(credential, message).await?.into())
        })
        .await
    }

    type VerifyStreamStream = VerifyAnswers;

    async fn verify_stream(
        &self,
        request: Request<Streaming<VerifyStreamRequest>>,
    ) -> Result<Response<VerifyAnswers>, Status> {
        self.call(Rpc::VerifyStream, request, async |credential, questions| {
            credential.caller().require(Permission::Verify)?;
            let (engine, metrics) = (Arc::clone(&self.engine), Arc::clone(&self.metrics));
            let draining = self.draining.clone();
            Ok(VerifyAnswers::new(engine, metrics, credential, questions, draining, Span::current()))
        })
        .await
    }
}
