//! The integrations: one file per foreign protocol, which reads its request and writes its response.
//! Shared here: the call, the caller and the criteria. Called by the HTTP listener and the
//! gRPC port. No integration decides by itself, and none answers "no" where the result is not known.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Instrument as _, Span, field};

use super::config::IntegrationsConfig;
use super::presented;
use super::refusal::Refusal;
use crate::admission::fair_limiter::Refused;
use crate::api::context::Context;
use crate::api::error::CallError;
use crate::auth::peer::Peer;
use crate::domain::audit_context::{self, Acting, AuditContext};
use crate::domain::plan::PlanName;
use crate::domain::{FieldError, OrganizationId, Scopes, Verdict};
use crate::metrics::{Integration, IntegrationOutcome};
use crate::runtime::panics;
use crate::telemetry;
use crate::verify::{Consistency, Credential, Criteria, Verification};

/// The deadline of a call that has none of its own.
const INTEGRATION_DEADLINE: Duration = Duration::from_secs(10);

/// What all integrations share.
#[derive(Debug, Clone)]
pub struct Integrations {
    /// What all APIs share.
    pub context: Context,
    /// The configuration.
    pub config: Arc<IntegrationsConfig>,
}

/// What is asked about a presented secret.
#[derive(Debug, Default)]
pub(crate) struct Requirements {
    /// How much it spends; `None`: 1.
    pub(crate) cost: Option<u32>,
    pub(crate) limit: Option<PlanName>,
    pub(crate) required: Scopes,
    /// Whether something is also required that no token can have.
    pub(crate) unmeetable: bool,
    pub(crate) organization: Option<OrganizationId>,
    pub(crate) client_ip: Option<IpAddr>,
}

/// Reads how much a request spends.
pub(crate) fn cost(text: &str) -> Result<u32, FieldError> {
    // A sign is not among the digits of the other ways to ask.
    let digits = Some(text).filter(|text| !text.starts_with('+'));
    digits.and_then(|digits| digits.parse().ok()).ok_or(FieldError::Rule("is not a whole number below 2^32"))
}

impl Integrations {
    /// Runs `work` as a call of this integration: in its span, within its deadline, counted, and
    /// logged when refused.
    pub(crate) async fn call<T>(
        &self,
        integration: Integration,
        peer: Option<IpAddr>,
        traceparent: Option<&str>,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let started = Instant::now();
        let context = self.context.sampling.context(traceparent);
        let span = tracing::info_span!(
            "integration",
            otel.name = integration.word(),
            otel.kind = "server",
            integration = integration.word(),
            trace.id = %context.trace_id,
            caller = field::Empty,
            token.id = field::Empty,
            user.id = field::Empty,
            verdict = field::Empty,
        );
        telemetry::adopt(&span, &context, self.context.sampling);
        let provenance = AuditContext { acting: Acting::Caller, trace_id: Some(context.trace_id) };
        // On the heap: it is large, and would be moved through every layer above.
        let work = Box::pin(audit_context::within(provenance, work));
        let work = async {
            let work = tokio::time::timeout(INTEGRATION_DEADLINE, panics::caught(work));
            let outcome = match work.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panicked)) => Err(panicked.into()),
                Err(_) => Err(Refusal::Overdue),
            };
            let duration = started.elapsed();
            match &outcome {
                Ok(_) => tracing::debug!(duration_ms = duration.as_secs_f64() * 1e3, "answered"),
                Err(refusal) => refusal.log(duration, peer),
            }
            let ended = outcome.as_ref().map_or_else(Refusal::outcome, |_| IntegrationOutcome::Done);
            self.context.metrics.integrations.ended(integration, ended, duration);
            outcome
        };
        work.instrument(span).await
    }

    /// Authenticates the caller, for the integrations that have callers.
    pub(crate) async fn caller(
        &self,
        presented: &presented::Caller<'_>,
        peer: &Peer,
    ) -> Result<Credential, Refusal> {
        let authenticated = self
            .context
            .callers
            .authenticate_presented(&self.context.engine, presented.secret(), Some(peer))
            .await;
        let credential = match authenticated {
            Ok(credential) => credential,
            Err(error) => {
                return Err(CallError::from(
                    self.context.callers.refuse(error, Some(peer), &self.context.metrics).await,
                )
                .into());
            }
        };
        let principal = &credential.caller().principal;
        Span::current().record("caller", field::display(principal));
        presented.check_name(principal)?;
        Ok(credential)
    }

    /// Asks the engine as Verify does: from a fresh cache directly, otherwise with a permit of the
    /// client that is charged.
    pub(crate) async fn verify(
        &self,
        secret: &str,
        criteria: &Criteria<'_>,
    ) -> Result<Verification, CallError> {
        let now = self.context.engine.read_point();
        let now = now.and_then(|read_point| self.context.engine.try_verify(secret, criteria, &read_point));
        let answer = if let Some(answer) = now {
            answer
        } else {
            let _permit = self.context.call_permits.take(criteria.charged_to)?;
            self.context.engine.verify(secret, criteria, Consistency::Bounded).await?
        };
        self.context.metrics.calls.verdict(answer.verdict);
        Span::current().record("verdict", answer.verdict.word());
        if let Some((record, _)) = &answer.token {
            Span::current().record("token.id", record.packed().id());
        }
        Ok(answer)
    }

    /// Delays the response to a possible guess, as for callers' own credentials.
    pub(crate) async fn hold(&self, verdict: Verdict, address: Option<IpAddr>) -> Result<(), CallError> {
        match address {
            Some(address) if verdict == Verdict::NotFound && !self.context.callers.hold(address).await => {
                Err(Refused::Full.into())
            }
            _ => Ok(()),
        }
    }
}
