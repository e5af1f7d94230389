//! Metrics of RPC calls: by RPC, code and verdict, and their durations. Called once per call by the
//! gRPC API; all label values are looked up at the start, so that a call costs a few additions.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec};

use super::{Family, LATENCY_BUCKETS, MetricsError, observe};
use crate::domain::Verdict;

/// The names of the gRPC status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The RPCs of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the RPC of its name")]
pub enum Rpc {
    CreateToken,
    GetToken,
    ListTokens,
    UpdateToken,
    RotateToken,
    RevokeToken,
    RevokeUserTokens,
    DisableToken,
    EnableToken,
    Verify,
    VerifyStream,
    WatchTokens,
    ListTokenEvents,
    GetPolicy,
    UpdatePolicy,
    CheckPolicy,
    EnforcePolicy,
    CreateConsoleLink,
    DisableUser,
    EnableUser,
    ListUsers,
    GetLoginPage,
    ExchangeLoginCode,
    CreatePortalSession,
    RevokePortalSessions,
    GetUsage,
    SetPlan,
    GetPlan,
    ListPlans,
    DeletePlan,
    AddCredits,
    GetTokenLimits,
}

impl Rpc {
    const ALL: [Self; 32] = [
        Self::CreateToken,
        Self::GetToken,
        Self::ListTokens,
        Self::UpdateToken,
        Self::RotateToken,
        Self::RevokeToken,
        Self::RevokeUserTokens,
        Self::DisableToken,
        Self::EnableToken,
        Self::Verify,
        Self::VerifyStream,
        Self::WatchTokens,
        Self::ListTokenEvents,
        Self::GetPolicy,
        Self::UpdatePolicy,
        Self::CheckPolicy,
        Self::EnforcePolicy,
        Self::CreateConsoleLink,
        Self::DisableUser,
        Self::EnableUser,
        Self::ListUsers,
        Self::GetLoginPage,
        Self::ExchangeLoginCode,
        Self::CreatePortalSession,
        Self::RevokePortalSessions,
        Self::GetUsage,
        Self::SetPlan,
        Self::GetPlan,
        Self::ListPlans,
        Self::DeletePlan,
        Self::AddCredits,
        Self::GetTokenLimits,
    ];

    /// Returns the RPC's name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateToken => "CreateToken",
            Self::GetToken => "GetToken",
            Self::ListTokens => "ListTokens",
            Self::UpdateToken => "UpdateToken",
            Self::RotateToken => "RotateToken",
            Self::RevokeToken => "RevokeToken",
            Self::RevokeUserTokens => "RevokeUserTokens",
            Self::DisableToken => "DisableToken",
            Self::EnableToken => "EnableToken",
            Self::Verify => "Verify",
            Self::VerifyStream => "VerifyStream",
            Self::WatchTokens => "WatchTokens",
            Self::ListTokenEvents => "ListTokenEvents",
            Self::GetPolicy => "GetPolicy",
            Self::UpdatePolicy => "UpdatePolicy",
            Self::CheckPolicy => "CheckPolicy",
            Self::EnforcePolicy => "EnforcePolicy",
            Self::CreateConsoleLink => "CreateConsoleLink",
            Self::DisableUser => "DisableUser",
            Self::EnableUser => "EnableUser",
            Self::ListUsers => "ListUsers",
            Self::GetLoginPage => "GetLoginPage",
            Self::ExchangeLoginCode => "ExchangeLoginCode",
            Self::CreatePortalSession => "CreatePortalSession",
            Self::RevokePortalSessions => "RevokePortalSessions",
            Self::GetUsage => "GetUsage",
            Self::SetPlan => "SetPlan",
            Self::GetPlan => "GetPlan",
            Self::ListPlans => "ListPlans",
            Self::DeletePlan => "DeletePlan",
            Self::AddCredits => "AddCredits",
            Self::GetTokenLimits => "GetTokenLimits",
        }
    }
}

/// Counts calls and verdicts.
#[derive(Debug)]
pub struct CallMetrics {
    ended: Vec<[IntCounter; CODES.len()]>,
    durations: Vec<Histogram>,
    verdicts: Vec<IntCounter>,
    stream_answers: IntCounter,
}

impl CallMetrics {
    pub(super) fn new(family: &Family) -> Result<Self, MetricsError> {
        let ended = family.counters("calls_total", "Calls that ended, by RPC and code.", &["rpc", "code"])?;
        let options = HistogramOpts::new(
            "call_duration_seconds",
            "Time from a call's arrival to its response; for a stream, to its acceptance.",
        );
        let options = options.namespace("tokend").buckets(LATENCY_BUCKETS.to_vec());
        let durations = family.register(HistogramVec::new(options, &["rpc"])?)?;
        let verdicts = family.counters(
            "verdicts_total",
            "Verdicts returned, including those in streams.",
            &["verdict"],
        )?;
        Ok(Self {
            ended: Rpc::ALL.map(|rpc| by_code(&ended, rpc)).into(),
            durations: Rpc::ALL.map(|rpc| durations.with_label_values(&[rpc.name()])).into(),
            verdicts: Verdict::ALL.map(|verdict| verdicts.with_label_values(&[verdict.word()])).into(),
            stream_answers: family.counter("stream_answers_total", "Responses sent within VerifyStream.")?,
        })
    }

    /// Counts a call that ended with this code.
    pub fn answered(&self, rpc: Rpc, code: i32, duration: Duration) {
        let code = usize::try_from(code).ok();
        let counters = self.ended.get(rpc as usize);
        if let Some(counter) = counters.and_then(|counters| counters.get(code?)) {
            counter.inc();
        }
        if let Some(histogram) = self.durations.get(rpc as usize) {
            observe(histogram, duration);
        }
    }

    /// Counts a verdict.
    pub fn verdict(&self, verdict: Verdict) {
        if let Some(counter) = self.verdicts.get(verdict as usize) {
            counter.inc();
        }
    }

    /// Counts the responses of a stream.
    pub fn stream_answers(&self, given: &VerdictCounts) {
        let answers = given.0.iter().sum();
        if answers == 0 {
            return;
        }
        self.stream_answers.inc_by(answers);
        for (counter, count) in self.verdicts.iter().zip(given.0) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }
}

/// Verdicts that are counted together: counters written by all cores are expensive for each of them.
#[derive(Debug, Default)]
pub struct VerdictCounts([u64; Verdict::ALL.len()]);

impl VerdictCounts {
    /// Counts a verdict.
    pub fn add(&mut self, verdict: Verdict) {
        if let Some(count) = self.0.get_mut(verdict as usize) {
            *count += 1;
        }
    }
}

fn by_code(ended: &IntCounterVec, rpc: Rpc) -> [IntCounter; CODES.len()] {
    CODES.map(|code| ended.with_label_values(&[rpc.name(), code]))
}
