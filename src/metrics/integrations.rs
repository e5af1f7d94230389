//! How calls of the ways in beside the RPCs end, and how long they take. Called once a call by each way.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter};

use super::{Family, LATENCY_BUCKETS, MetricsError, observe};

/// The ways in beside the RPCs.
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
}

impl Integration {
    const ALL: [Self; 5] =
        [Self::Introspection, Self::Revocation, Self::ForwardAuth, Self::ExtAuthz, Self::TokenReview];

    /// Returns the way's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Introspection => "introspection",
            Self::Revocation => "revocation",
            Self::ForwardAuth => "forward_auth",
            Self::ExtAuthz => "ext_authz",
            Self::TokenReview => "token_review",
        }
    }
}

/// How a call of a way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrationOutcome {
    /// It was answered; at a gate: let in.
    Done,
    /// The credential was refused: 401.
    Unauthenticated,
    /// It does not allow this: 403.
    Forbidden,
    /// The request was wrong: 400.
    Invalid,
    /// It could not be found out, or too much was asked: 503 and 429.
    Unavailable,
}

impl IntegrationOutcome {
    const ALL: [Self; 5] =
        [Self::Done, Self::Unauthenticated, Self::Forbidden, Self::Invalid, Self::Unavailable];

    const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Counts calls of the ways.
#[derive(Debug)]
pub struct IntegrationMetrics {
    ended: Vec<[IntCounter; IntegrationOutcome::ALL.len()]>,
    durations: Vec<Histogram>,
}

impl IntegrationMetrics {
    pub(super) fn new(family: &Family) -> Result<Self, MetricsError> {
        let ended = family.counters(
            "integration_calls_total",
            "Calls that came by other ways than the RPCs, by way and outcome.",
            &["integration", "outcome"],
        )?;
        let options = HistogramOpts::new(
            "integration_call_duration_seconds",
            "From such a call's arrival to its answer.",
        );
        let options = options.namespace("tokend").buckets(LATENCY_BUCKETS.to_vec());
        let durations = family.register(HistogramVec::new(options, &["integration"])?)?;
        let by_outcome = |way: Integration| {
            IntegrationOutcome::ALL.map(|outcome| ended.with_label_values(&[way.word(), outcome.word()]))
        };
        Ok(Self {
            ended: Integration::ALL.map(by_outcome).into(),
            durations: Integration::ALL.map(|way| durations.with_label_values(&[way.word()])).into(),
        })
    }

    /// Counts a call that ended like this.
    pub fn ended(&self, way: Integration, outcome: IntegrationOutcome, duration: Duration) {
        if let Some(counter) = self.ended.get(way as usize).and_then(|ended| ended.get(outcome as usize)) {
            counter.inc();
        }
        if let Some(histogram) = self.durations.get(way as usize) {
            observe(histogram, duration);
        }
    }
}
