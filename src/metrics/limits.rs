//! Metrics of limits: what is leased, and what was admitted or lost without the database. Called by the lessor and by a
//! job. Verdicts are counted with the calls.

use prometheus::{IntCounter, IntGauge};

use super::{Family, MetricsError};

/// Counts what the limits do.
#[derive(Debug)]
pub struct LimitMetrics {
    rounds: IntCounter,
    failures: IntCounter,
    leases: IntCounter,
    allowances: IntGauge,
    admitted: IntCounter,
    lost: IntCounter,
}

impl LimitMetrics {
    pub(super) fn new(family: &Family) -> Result<Self, MetricsError> {
        Ok(Self {
            rounds: family
                .counter("limit_rounds_total", "Times that the database was asked for leases or plans.")?,
            failures: family.counter("limit_round_failures_total", "Times that it did not answer.")?,
            leases: family
                .counter("limit_leases_total", "Requests for leases of allowances, many in one statement.")?,
            allowances: family.gauge("limit_allowances", "Allowances in memory.")?,
            admitted: family.counter(
                "limit_outage_admissions_total",
                "Times that a limit was spent without the database, as its plan allows.",
            )?,
            lost: family.counter(
                "credits_lost_total",
                "Credits that a replica had leased and never settled, found by this replica.",
            )?,
        })
    }

    /// Counts a round.
    pub fn round(&self, answered: bool) {
        self.rounds.inc();
        if !answered {
            self.failures.inc();
        }
    }

    /// Counts requests for leases.
    pub fn leased(&self, requests: usize) {
        self.leases.inc_by(requests as u64);
    }

    /// Sets how many allowances are in memory.
    pub fn loaded(&self, allowances: usize) {
        self.allowances.set(i64::try_from(allowances).unwrap_or(i64::MAX));
    }

    /// Counts an admission without the database.
    pub fn admitted_in_outage(&self) {
        self.admitted.inc();
    }

    /// Counts lost credits.
    pub fn lost(&self, credits: u64) {
        self.lost.inc_by(credits);
    }
}
