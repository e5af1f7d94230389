//! Metrics of work that takes time or memory besides the engine: Argon2id, the database's pool,
//! connections, long responses, jobs. Called by each of them.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::tasks::Task;
use super::{Family, MetricsError, observe};

/// Counts work besides the engine's.
#[derive(Debug)]
pub struct WorkMetrics {
    /// Argon2id for new tokens.
    pub creation: HashingMetrics,
    /// Argon2id for tokens whose MAC's key is gone.
    pub fallback: HashingMetrics,
    /// Long responses.
    pub response_memory: ResponseMemoryMetrics,
    /// Requests without a response yet.
    pub requests: RequestMetrics,
    connections: IntGauge,
    connections_refused: IntCounter,
    handshake_failures: IntCounter,
    authentication_failures: IntCounter,
    pool_used: IntGauge,
    pool_idle: IntGauge,
    flush: Histogram,
    flush_failures: IntCounter,
    flushed: IntCounter,
    usage_lost: IntCounter,
    spans_exported: IntCounter,
    spans_lost: IntCounter,
    unsealed: Gauge,
    reloads: IntCounterVec,
    task_restarts: IntCounterVec,
}

/// What is reloaded while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// Certificate, key, client CA and revocation lists of the listeners.
    Tls,
    /// The keyring.
    Keyring,
    /// The mappings of client certificates.
    Certificates,
    /// The password of the database's role.
    DatabasePassword,
}

impl Reloaded {
    /// All of them.
    const ALL: [Self; 4] = [Self::Tls, Self::Keyring, Self::Certificates, Self::DatabasePassword];

    /// Returns its name in log messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS certificate, key, client CA and revocation lists",
            Self::Keyring => "keyring",
            Self::Certificates => "configuration of client certificates",
            Self::DatabasePassword => "database password",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Keyring => "keyring",
            Self::Certificates => "client_certificates",
            Self::DatabasePassword => "database_password",
        }
    }
}

/// Metrics of one use of Argon2id.
#[derive(Debug, Clone)]
pub struct HashingMetrics {
    running: IntGauge,
    waiting: IntGauge,
    refused: IntCounter,
    done: IntCounter,
}

/// Counts rejected long responses, and reports the bytes that the others take.
#[derive(Debug, Clone)]
pub struct ResponseMemoryMetrics {
    bytes: IntGauge,
    full: IntCounter,
    over_share: IntCounter,
}

/// Counts rejected requests, and reports the bytes that the others take.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    bytes: IntGauge,
    full: IntCounter,
    over_share: IntCounter,
    evicted: IntCounter,
}

struct Hashing {
    running: IntGaugeVec,
    waiting: IntGaugeVec,
    refused: IntCounterVec,
    done: IntCounterVec,
}

impl Hashing {
    fn new(family: &Family) -> Result<Self, MetricsError> {
        Ok(Self {
            running: family.gauges(
                "argon2_running",
                "Argon2id computations that are running.",
                &["purpose"],
            )?,
            waiting: family.gauges(
                "argon2_waiting",
                "Argon2id computations that wait for a permit.",
                &["purpose"],
            )?,
            refused: family.counters(
                "argon2_refused_total",
                "Argon2id computations that were refused because too many wait.",
                &["purpose"],
            )?,
            done: family.counters("argon2_done_total", "Argon2id computations that ended.", &["purpose"])?,
        })
    }

    fn of(&self, purpose: &str) -> HashingMetrics {
        HashingMetrics {
            running: self.running.with_label_values(&[purpose]),
            waiting: self.waiting.with_label_values(&[purpose]),
            refused: self.refused.with_label_values(&[purpose]),
            done: self.done.with_label_values(&[purpose]),
        }
    }
}

impl WorkMetrics {
    pub(super) fn new(family: &Family) -> Result<Self, MetricsError> {
        let hashing = Hashing::new(family)?;
        let spans = family.counters(
            "spans_total",
            "Spans that were sent to the collector, by whether it accepted them.",
            &["outcome"],
        )?;
        let pool = family.gauges("database_connections", "Connections of the pool.", &["state"])?;
        Ok(Self {
            creation: hashing.of("creation"),
            fallback: hashing.of("fallback"),
            response_memory: ResponseMemoryMetrics::new(family)?,
            requests: RequestMetrics::new(family)?,
            connections: family.gauge("connections", "Connections of clients.")?,
            connections_refused: family.counter(
                "connections_refused_total",
                "Connections that were refused because their address had its share.",
            )?,
            handshake_failures: family.counter("handshake_failures_total", "TLS handshakes that failed.")?,
            authentication_failures: family
                .counter("authentication_failures_total", "Calls whose credential was not accepted.")?,
            pool_used: pool.with_label_values(&["used"]),
            pool_idle: pool.with_label_values(&["idle"]),
            flush: family.latency(
                "last_use_flush_duration_seconds",
                "Duration of writing uses of tokens to the database.",
            )?,
            flush_failures: family.counter("last_use_flush_failures_total", "Flushes that failed.")?,
            flushed: family
                .counter("last_use_flushed_total", "Uses of tokens that were written to the database.")?,
            usage_lost: family.counter(
                "usage_lost_total",
                "Verifications that are missing in the usage because too many were not written.",
            )?,
            spans_exported: spans.with_label_values(&["exported"]),
            spans_lost: spans.with_label_values(&["lost"]),
            reloads: reloads(family)?,
            unsealed: family.seconds(
                "audit_unsealed_seconds",
                "Age of the oldest event of the audit log without a seal.",
            )?,
            task_restarts: task_restarts(family)?,
        })
    }

    /// Returns the gauge of open connections; it falls when a connection's guard is dropped.
    #[must_use]
    pub fn connections(&self) -> &IntGauge {
        &self.connections
    }

    /// Counts a connection that was rejected because its address has used up its share.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// Counts a handshake that failed.
    pub fn handshake_failed(&self) {
        self.handshake_failures.inc();
    }

    /// Counts a call whose credential was rejected.
    pub fn authentication_failed(&self) {
        self.authentication_failures.inc();
    }

    /// Counts a reload after a change, or a failed one.
    pub fn reloaded(&self, what: Reloaded, used: bool) {
        self.reloads.with_label_values(&[what.label(), if used { "used" } else { "refused" }]).inc();
    }

    /// Counts the restart of a task.
    pub fn task_restarted(&self, task: Task) {
        self.task_restarts.with_label_values(&[task.word()]).inc();
    }

    /// Sets the pool's sizes when metrics are requested.
    pub fn sample_pool(&self, used: u32, idle: u32) {
        self.pool_used.set(used.into());
        self.pool_idle.set(idle.into());
    }

    /// Counts the spans sent since the last call.
    pub fn spans(&self, exported: u64, lost: u64) {
        self.spans_exported.inc_by(exported);
        self.spans_lost.inc_by(lost);
    }

    /// Sets the age of the oldest event without a seal.
    pub fn unsealed(&self, age: Duration) {
        self.unsealed.set(age.as_secs_f64());
    }

    /// Counts verifications that the usage does not have.
    pub fn usage_lost(&self, verifications: u64) {
        self.usage_lost.inc_by(verifications);
    }

    /// Counts a flush of uses.
    pub fn flushed(&self, duration: Duration, uses: Option<usize>) {
        observe(&self.flush, duration);
        match uses {
            Some(uses) => self.flushed.inc_by(uses as u64),
            None => self.flush_failures.inc(),
        }
    }
}

fn reloads(family: &Family) -> Result<IntCounterVec, MetricsError> {
    let labels = ["what", "outcome"];
    let reloads = family.counters("reloads_total", "Reloads of changed files, by result.", &labels)?;
    for what in Reloaded::ALL {
        for outcome in ["used", "refused"] {
            reloads.with_label_values(&[what.label(), outcome]);
        }
    }
    Ok(reloads)
}

fn task_restarts(family: &Family) -> Result<IntCounterVec, MetricsError> {
    let restarts = family.counters("task_restarts_total", "Tasks started again after a panic.", &["task"])?;
    for task in Task::ALL {
        // Present from the start.
        let _ = restarts.with_label_values(&[task.word()]);
    }
    Ok(restarts)
}

impl ResponseMemoryMetrics {
    fn new(family: &Family) -> Result<Self, MetricsError> {
        let refused = family.counters(
            "response_memory_refused_total",
            "Responses that were refused because others are unread or still in preparation.",
            &["reason"],
        )?;
        Ok(Self {
            bytes: family.gauge("response_memory_bytes", "Memory of responses until they are read.")?,
            full: refused.with_label_values(&["full"]),
            over_share: refused.with_label_values(&["over_share"]),
        })
    }

    /// Counts a response that was rejected because no memory was left.
    pub fn refused_full(&self) {
        self.full.inc();
    }

    /// Counts a response that was rejected because its caller has used up its share.
    pub fn refused_over_share(&self) {
        self.over_share.inc();
    }

    /// Sets the bytes in use when metrics are requested.
    pub fn sample(&self, bytes: usize) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl RequestMetrics {
    fn new(family: &Family) -> Result<Self, MetricsError> {
        let refused = family.counters(
            "requests_refused_total",
            "Requests that were refused before their end because others are unfinished.",
            &["reason"],
        )?;
        Ok(Self {
            bytes: family.gauge("request_bytes", "Memory of requests until they are answered.")?,
            full: refused.with_label_values(&["full"]),
            over_share: refused.with_label_values(&["over_share"]),
            evicted: refused.with_label_values(&["evicted"]),
        })
    }

    /// Counts a request that was rejected because no memory was left.
    pub fn refused_full(&self) {
        self.full.inc();
    }

    /// Counts a request that was rejected because its client has used up its share.
    pub fn refused_over_share(&self) {
        self.over_share.inc();
    }

    /// Counts a connection that was closed to make room for those of other addresses.
    pub fn evicted(&self) {
        self.evicted.inc();
    }

    /// Sets the bytes in use when metrics are requested.
    pub fn sample(&self, bytes: usize) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl HashingMetrics {
    /// Counts a waiting computation until the returned guard is dropped.
    #[must_use]
    pub fn waiting(&self) -> Counted {
        Counted::new(&self.waiting)
    }

    /// Counts a running computation until the returned guard is dropped.
    #[must_use]
    pub fn running(&self) -> Counted {
        self.done.inc();
        Counted::new(&self.running)
    }

    /// Counts a computation that was rejected because the queue was full.
    pub fn refused(&self) {
        self.refused.inc();
    }
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    /// Adds one to the gauge.
    #[must_use]
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
