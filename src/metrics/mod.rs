//! Prometheus metrics for operators: counters, gauges and histograms, one registry per server. Called
//! by all measured code, through plain methods; read by `/metrics`. Every label has a fixed set of
//! values. Values that can be read on request (sizes, ages) are not stored here but sampled then.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

mod calls;
mod engine;
mod integrations;
mod limits;
mod tasks;
mod work;

pub use calls::{CallMetrics, Rpc, VerdictCounts};
pub use engine::{EngineMetrics, EngineSample, Lookup};
pub use integrations::{Integration, IntegrationMetrics, IntegrationOutcome};
pub use limits::LimitMetrics;
pub use tasks::Task;
pub use work::{Counted, HashingMetrics, Reloaded, RequestMetrics, ResponseMemoryMetrics, WorkMetrics};

/// Upper bounds in seconds: 50 µs to 5 s, three per decade.
const LATENCY_BUCKETS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
];

/// All metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Metrics of the RPCs.
    pub calls: CallMetrics,
    /// Metrics of the integrations besides the RPCs.
    pub integrations: IntegrationMetrics,
    /// Metrics of the verification engine.
    pub engine: EngineMetrics,
    /// Metrics of limits.
    pub limits: LimitMetrics,
    /// Metrics of Argon2id, the database's pool, connections and jobs.
    pub work: WorkMetrics,
}

/// A metric could not be registered: two have the same name.
#[derive(Debug, thiserror::Error)]
#[error("a metric could not be registered")]
pub struct MetricsError(#[from] prometheus::Error);

impl Metrics {
    /// Creates a registry with every metric at zero.
    ///
    /// # Errors
    /// [`MetricsError`]: a bug in this build.
    pub fn new() -> Result<Self, MetricsError> {
        let family = Family(Registry::new());
        let build = family.gauges("build_info", "Always 1; the label is the version.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        family.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        if let Some(rows) = &*UNREADABLE_ROWS {
            family.register(rows.clone())?;
        }
        Ok(Self {
            calls: CallMetrics::new(&family)?,
            integrations: IntegrationMetrics::new(&family)?,
            engine: EngineMetrics::new(&family)?,
            limits: LimitMetrics::new(&family)?,
            work: WorkMetrics::new(&family)?,
            registry: family.0,
        })
    }

    /// Formats all metrics in Prometheus's text format, version 0.0.4.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn render(&self) -> Result<Vec<u8>, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Counts a row that cannot be read. One counter per process: rows are also read without a server.
pub fn unreadable_row(table: &str) {
    if let Some(rows) = &*UNREADABLE_ROWS {
        rows.with_label_values(&[table]).inc();
    }
}

static UNREADABLE_ROWS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Times that a row with values that tokend never writes was read.";
    let rows = IntCounterVec::new(Family::options("unreadable_rows_total", help), &["table"]).ok()?;
    for table in ["tokens", "token_events", "token_changes"] {
        // Present from the start.
        let _ = rows.with_label_values(&[table]);
    }
    Some(rows)
});

/// Creates metrics whose names start with `tokend_`, and registers them.
struct Family(Registry);

impl Family {
    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, MetricsError> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn options(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("tokend")
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(IntCounter::with_opts(Self::options(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricsError> {
        self.register(IntCounterVec::new(Self::options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(IntGauge::with_opts(Self::options(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricsError> {
        self.register(IntGaugeVec::new(Self::options(name, help), labels)?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.register(Gauge::with_opts(Self::options(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, MetricsError> {
        let options = HistogramOpts::new(name, help).namespace("tokend").buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    fn latency(&self, name: &str, help: &str) -> Result<Histogram, MetricsError> {
        self.histogram(name, help, &LATENCY_BUCKETS)
    }
}

fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Verdict;

    #[test]
    fn all_metrics_exist_from_the_start_and_count() {
        let metrics = Metrics::new().unwrap();
        let text = || String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(text().contains("tokend_verdicts_total{verdict=\"valid\"} 0"), "{}", text());

        metrics.calls.verdict(Verdict::Valid);
        metrics.calls.answered(Rpc::Verify, 0, Duration::from_micros(60));

        let text = text();
        for line in [
            "tokend_verdicts_total{verdict=\"valid\"} 1",
            "tokend_calls_total{code=\"OK\",rpc=\"Verify\"} 1",
            "tokend_call_duration_seconds_bucket{rpc=\"Verify\",le=\"0.00005\"} 0",
            "tokend_call_duration_seconds_bucket{rpc=\"Verify\",le=\"0.0001\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
