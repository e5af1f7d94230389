//! Metrics of the integrations besides the RPCs: outcomes and durations. Called once per call by each
//! integration.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter};

use super::{Family, LATENCY_BUCKETS, MetricsError, observe};

/// The integrations besides the RPCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integration {
    /// RFC 7662.
    Introspection,
    /// RFC 7009.
    Revocation,
    /// `GET /auth`, for gateways.
    ForwardAuth,
    /// Envoy's external authorization.
    ExtAuthz,
    /// Kubernetes' `TokenReview`.
    TokenReview,
    /// The pages of the console.
    Console,
}

impl Integration {
    const ALL: [Self; 6] = [
        Self::Introspection,
        Self::Revocation,
        Self::ForwardAuth,
        Self::ExtAuthz,
        Self::TokenReview,
        Self::Console,
    ];

    /// Returns the integration's label value.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Introspection => "introspection",
            Self::Revocation => "revocation",
            Self::ForwardAuth => "forward_auth",
            Self::ExtAuthz => "ext_authz",
            Self::TokenReview => "token_review",
            Self::Console => "console",
        }
    }
}

/// The outcome of an integration's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrationOutcome {
    /// The call was answered; for a gateway: access was granted.
    Done,
    /// The credential was rejected: 401.
    Unauthenticated,
    /// The credential does not allow this: 403.
    Forbidden,
    /// A limit of the credential's plan is used up: 429.
    Limited,
    /// The request was not valid: 400.
    Invalid,
    /// The database could not answer, or there were too many requests: 503 and 429.
    Unavailable,
}

impl IntegrationOutcome {
    const ALL: [Self; 6] =
        [Self::Done, Self::Unauthenticated, Self::Forbidden, Self::Limited, Self::Invalid, Self::Unavailable];

    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Limited => "limited",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Counts calls of the integrations.
#[derive(Debug)]
pub struct IntegrationMetrics {
    ended: Vec<[IntCounter; IntegrationOutcome::ALL.len()]>,
    durations: Vec<Histogram>,
}

impl IntegrationMetrics {
    pub(super) fn new(family: &Family) -> Result<Self, MetricsError> {
        let ended = family.counters(
            "integration_calls_total",
            "Calls of the integrations, by integration and outcome.",
            &["integration", "outcome"],
        )?;
        let options = HistogramOpts::new(
            "integration_call_duration_seconds",
            "Time from the arrival of an integration's call to its response.",
        );
        let options = options.namespace("tokend").buckets(LATENCY_BUCKETS.to_vec());
        let durations = family.register(HistogramVec::new(options, &["integration"])?)?;
        let by_outcome = |integration: Integration| {
            IntegrationOutcome::ALL
                .map(|outcome| ended.with_label_values(&[integration.word(), outcome.word()]))
        };
        Ok(Self {
            ended: Integration::ALL.map(by_outcome).into(),
            durations: Integration::ALL
                .map(|integration| durations.with_label_values(&[integration.word()]))
                .into(),
        })
    }

    /// Counts a call with this outcome.
    pub fn ended(&self, integration: Integration, outcome: IntegrationOutcome, duration: Duration) {
        if let Some(counter) =
            self.ended.get(integration as usize).and_then(|ended| ended.get(outcome as usize))
        {
            counter.inc();
        }
        if let Some(histogram) = self.durations.get(integration as usize) {
            observe(histogram, duration);
        }
    }
}
