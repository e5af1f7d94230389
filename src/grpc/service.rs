//! The service itself: each RPC authenticates its caller, reads its message, has the work done and writes
//! the answer. One span and at most one log line a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span, field};

use super::callers::Callers;
use super::convert::Wanted;
use super::error::CallError;
use super::proto::{
    CheckPolicyRequest, CheckPolicyResponse, CreateTokenRequest, CreateTokenResponse, DisableTokenRequest,
    DisableTokenResponse, EnableTokenRequest, EnableTokenResponse, EnforcePolicyRequest,
    EnforcePolicyResponse, GetPolicyRequest, GetPolicyResponse, GetTokenRequest, GetTokenResponse,
    ListTokenEventsRequest, ListTokenEventsResponse, ListTokensRequest, ListTokensResponse,
    RevokeTokenRequest, RevokeTokenResponse, RevokeUserTokensRequest, RevokeUserTokensResponse,
    RotateTokenRequest, RotateTokenResponse, UpdatePolicyRequest, UpdatePolicyResponse, UpdateTokenRequest,
    UpdateTokenResponse, VerifyRequest, VerifyStreamRequest, WatchTokensRequest,
};
use super::reply::VerifyReply;
use super::server::token_service_server::{TokenService, TokenServiceServer};
use super::stream::VerifyAnswers;
use super::suspicion::Suspicion;
use super::watch::{WatchStream, Watcher};
use super::{MAX_REQUEST_BYTES, audit, changes, convert, policies, status};
use crate::actions::Actions;
use crate::deadline;
use crate::domain::{Caller, FieldError, Permission, Violations};
use crate::listener::Peer;
use crate::metrics::{Metrics, Rpc};
use crate::provenance::{self, ActingUser, Provenance};
use crate::secret::Keyring;
use crate::shares::Shares;
use crate::store::Usability;
use crate::telemetry::{self, Sampling, TraceContext};
use crate::verify::{Answer, AuthenticateError, Consistency, Credential, Engine, Present, Question, Share};
use crate::watch::Hub;

/// From when on an answer is worth a line in the log.
const SLOW: Duration = Duration::from_millis(500);

/// Serves `tokend.v1.TokenService`.
#[derive(Debug)]
pub struct TokenApi {
    /// Knows secrets.
    pub engine: Arc<Engine>,
    /// Does the rest.
    pub actions: Arc<Actions>,
    /// Knows who calls.
    pub callers: Arc<Callers>,
    /// Places for calls that take waiting.
    pub places: Shares<Share>,
    /// Which calls' spans are exported.
    pub sampling: Sampling,
    /// Tells what changes.
    pub hub: Arc<Hub>,
    /// Authenticates watchers' positions.
    pub keyring: Arc<Keyring>,
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
        self.call_or(rpc, request, |_, _| None, work).await
    }

    /// Does the same where a refused credential may mean more than its refusal: `suspect` says of what.
    async fn call_or<'a, M, A, F>(
        &'a self,
        rpc: Rpc,
        request: Request<M>,
        suspect: impl FnOnce(&AuthenticateError, &Request<M>) -> Option<Suspicion>,
        work: impl FnOnce(Credential, M) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let context = self.sampling.context(traceparent(&request));
        self.call_within(context, rpc, request, suspect, work).await
    }

    /// Does the same in a trace that is known already.
    async fn call_within<'a, M, A, F>(
        &'a self,
        context: TraceContext,
        rpc: Rpc,
        request: Request<M>,
        suspect: impl FnOnce(&AuthenticateError, &Request<M>) -> Option<Suspicion>,
        work: impl FnOnce(Credential, M) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, CallError>> + 'a,
    {
        let (span, trace_id) = (self.span(rpc, &context), context.trace_id);
        let started = Instant::now();
        let timeout = timeout(&request);
        let work = async {
            let outcome = match self.callers.authenticate(&self.engine, &request).await {
                Ok(credential) => {
                    let principal = &credential.caller().principal;
                    Span::current().record("caller", field::display(principal));
                    match (self.places.take(Share::Caller(principal.clone())), acting_user(&request)) {
                        (Ok(_place), Ok(acting_user)) => {
                            let provenance = Provenance { acting_user, trace_id: Some(trace_id) };
                            provenance::within(provenance, work(credential, request.into_inner())).await
                        }
                        (Err(refused), _) => Err(refused.into()),
                        (_, Err(violations)) => Err(violations.into()),
                    }
                }
                Err(error) => match self.follow(suspect(&error, &request), trace_id).await {
                    Ok(()) => {
                        let peer = request.extensions().get::<Peer>();
                        Err(self.callers.refuse(error, peer, &self.metrics).await)
                    }
                    Err(error) => Err(error),
                },
            };
            let outcome = conclude(outcome, started);
            let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
            self.metrics.calls.answered(rpc, code.into(), started.elapsed());
            outcome
        };
        // On the heap: it is large, and would be moved through every layer above.
        deadline::within(timeout, Box::pin(work)).instrument(span).await
    }
}

impl TokenApi {
    /// Begins the call's span, in the caller's trace if it brings one.
    fn span(&self, rpc: Rpc, context: &TraceContext) -> Span {
        let span = tracing::info_span!(
            "rpc",
            otel.name = rpc.name(),
            otel.kind = "server",
            rpc.method = rpc.name(),
            trace.id = %context.trace_id,
            caller = field::Empty,
            token.id = field::Empty,
            user.id = field::Empty,
            verdict = field::Empty,
        );
        telemetry::adopt(&span, context, self.sampling);
        span
    }
}

/// Reads for whom a trusted frontend acts.
fn acting_user<M>(request: &Request<M>) -> Result<Option<ActingUser>, Violations> {
    let Some(value) = request.metadata().get("tokend-acting-user") else { return Ok(None) };
    let parsed = value.to_str().map_err(|_| FieldError::ControlCharacter).and_then(ActingUser::parse);
    parsed.map(Some).map_err(|error| Violations::one("tokend-acting-user", &error))
}

/// Reads how long the caller waits.
fn timeout<M>(request: &Request<M>) -> Option<Duration> {
    deadline::parse_timeout(request.metadata().get("grpc-timeout")?.to_str().ok()?)
}

fn traceparent<M>(request: &Request<M>) -> Option<&str> {
    request.metadata().get("traceparent")?.to_str().ok()
}

/// Turns the outcome into what tonic sends, and logs it: answers at debug, slow ones at info.
fn conclude<A>(outcome: Result<A, CallError>, started: Instant) -> Result<Response<A>, Status> {
    let elapsed = started.elapsed();
    let duration_ms = elapsed.as_secs_f64() * 1e3;
    let answered = outcome.map(Response::new).inspect(|_| {
        if elapsed < SLOW {
            tracing::debug!(duration_ms, "answered");
        } else {
            tracing::info!(duration_ms, "answered slowly");
        }
    });
    answered.map_err(|error| {
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

/// Says in a call's span what Verify answers.
fn record_answer(span: &Span, answer: &Answer) {
    span.record("verdict", convert::verdict(answer.verdict).as_str_name());
    if let Some((record, _)) = &answer.token {
        span.record("token.id", record.packed().id());
    }
}

/// Completes when the server begins to end.
pub async fn drained(mut draining: watch::Receiver<bool>) {
    // An error means that the server itself is gone.
    let _ = draining.wait_for(|begun| *begun).await;
}

impl TokenApi {
    /// Authenticates the caller from a fresh cache; `None` when that cannot tell.
    fn known_caller<M>(&self, request: &Request<M>) -> Option<(Credential, Present)> {
        let present = self.engine.present()?;
        Some((self.callers.authenticate_now(&self.engine, request, &present)?, present))
    }

    /// Answers Verify for a caller that is known already. A span costs more than an answer: here only what is
    /// logged has one.
    async fn verify_for(
        &self,
        caller: &Caller,
        request: &Request<VerifyRequest>,
        present: &Present,
        started: Instant,
    ) -> Result<Response<VerifyReply>, Status> {
        let outcome = self.find_out(caller, request, present).await;
        let elapsed = started.elapsed();
        let outcome = match outcome.inspect(|answer| self.metrics.calls.verdict(answer.verdict)) {
            Ok(answer) if elapsed < SLOW => Ok(Response::new(answer.into())),
            outcome => {
                let span = self.span(Rpc::Verify, &self.sampling.context(traceparent(request)));
                span.record("caller", field::display(&caller.principal));
                let outcome = outcome.inspect(|answer| record_answer(&span, answer));
                span.in_scope(|| conclude(outcome.map(VerifyReply::from), started))
            }
        };
        let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.metrics.calls.answered(Rpc::Verify, code.into(), elapsed);
        outcome
    }

    /// Judges a secret: at once, if the cache can.
    async fn find_out(
        &self,
        caller: &Caller,
        request: &Request<VerifyRequest>,
        present: &Present,
    ) -> Result<Answer, CallError> {
        acting_user(request)?;
        let message = request.get_ref();
        let wanted = question(caller, message)?;
        let question = asked_of(caller, &wanted);
        if wanted.consistency == Consistency::Bounded
            && let Some(answer) = self.engine.verify_now(&message.secret, &question, present)
        {
            return Ok(answer);
        }
        let _place = self.places.take(question.share.clone())?;
        let work = self.engine.verify(&message.secret, &question, wanted.consistency);
        // On the heap, as in `call`.
        Ok(deadline::within(timeout(request), Box::pin(work)).await?)
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
        record_answer(&Span::current(), &answer);
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

    async fn rotate_token(
        &self,
        request: Request<RotateTokenRequest>,
    ) -> Result<Response<RotateTokenResponse>, Status> {
        let suspect = |error: &_, request: &Request<_>| self.suspect(error, request);
        self.call_or(Rpc::RotateToken, request, suspect, async |credential, message| {
            self.rotate(&credential, message).await
        })
        .await
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        self.call(Rpc::RevokeToken, request, async |credential, message| {
            self.revoke(&credential, message).await
        })
        .await
    }

    async fn revoke_user_tokens(
        &self,
        request: Request<RevokeUserTokensRequest>,
    ) -> Result<Response<RevokeUserTokensResponse>, Status> {
        self.call(Rpc::RevokeUserTokens, request, async |credential, message| {
            self.revoke_user(&credential, message).await
        })
        .await
    }

    async fn disable_token(
        &self,
        request: Request<DisableTokenRequest>,
    ) -> Result<Response<DisableTokenResponse>, Status> {
        self.call(Rpc::DisableToken, request, async |credential, message| {
            let switched = self.switch(&credential, &message.token_id, Usability::Disabled).await?;
            Ok(changes::disable_response(&switched))
        })
        .await
    }

    async fn enable_token(
        &self,
        request: Request<EnableTokenRequest>,
    ) -> Result<Response<EnableTokenResponse>, Status> {
        self.call(Rpc::EnableToken, request, async |credential, message| {
            let switched = self.switch(&credential, &message.token_id, Usability::Enabled).await?;
            Ok(changes::enable_response(&switched))
        })
        .await
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyReply>, Status> {
        let started = Instant::now();
        // Drawn once: whether a call is sampled must not be asked twice.
        let context = self.sampling.exports().then(|| self.sampling.context(traceparent(&request)));
        let wanted = tracing::enabled!(tracing::Level::DEBUG) || context.is_some_and(|drawn| drawn.sampled);
        if !wanted && let Some((credential, present)) = self.known_caller(&request) {
            return self.verify_for(credential.caller(), &request, &present, started).await;
        }
        let context = context.unwrap_or_else(|| self.sampling.context(traceparent(&request)));
        self.call_within(
            context,
            Rpc::Verify,
            request,
            |_, _| None,
            async |credential, message| Ok(self.verify_slowly(credential, message).await?.into()),
        )
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

    type WatchTokensStream = WatchStream;

    async fn watch_tokens(
        &self,
        request: Request<WatchTokensRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        self.call(Rpc::WatchTokens, request, async |credential, message| {
            let (engine, hub) = (Arc::clone(&self.engine), Arc::clone(&self.hub));
            let watcher = Watcher { engine, hub, keyring: Arc::clone(&self.keyring), credential };
            watcher.start(&message, self.draining.clone()).await
        })
        .await
    }

    async fn list_token_events(
        &self,
        request: Request<ListTokenEventsRequest>,
    ) -> Result<Response<ListTokenEventsResponse>, Status> {
        self.call(Rpc::ListTokenEvents, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Read)?;
            let request = audit::list_request(message)?;
            Ok(audit::list_response(self.actions.list_events(caller, request).await?))
        })
        .await
    }

    async fn get_policy(
        &self,
        request: Request<GetPolicyRequest>,
    ) -> Result<Response<GetPolicyResponse>, Status> {
        self.call(Rpc::GetPolicy, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Read)?;
            let organization_id = convert::organization(&message.organization_id)?;
            Ok(policies::get_response(self.actions.get_policy(caller, organization_id).await?))
        })
        .await
    }

    async fn update_policy(
        &self,
        request: Request<UpdatePolicyRequest>,
    ) -> Result<Response<UpdatePolicyResponse>, Status> {
        self.call(Rpc::UpdatePolicy, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Root)?;
            let (organization_id, policy) = policies::update_request(message)?;
            let updated = self.actions.update_policy(caller, organization_id, &policy).await?;
            tracing::info!(organization.id = updated.0.as_str(), ?policy, "policy set");
            Ok(policies::update_response(updated))
        })
        .await
    }

    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        self.call(Rpc::CheckPolicy, request, async |credential, message| {
            let caller = credential.caller();
            caller.require(Permission::Read)?;
            let (organization_id, policy) = policies::check_request(&message)?;
            let checked =
                self.actions.check_policy(caller, organization_id, policy, &message.page_token).await?;
            Ok(policies::check_response(checked))
        })
        .await
    }

    async fn enforce_policy(
        &self,
        request: Request<EnforcePolicyRequest>,
    ) -> Result<Response<EnforcePolicyResponse>, Status> {
        self.call(Rpc::EnforcePolicy, request, async |credential, message| {
            self.enforce(&credential, &message).await
        })
        .await
    }
}
