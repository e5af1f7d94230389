//! Metrics of the verification engine: its cache, its loader, its feed. Called by the engine's parts.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::{Family, MetricsError, observe};

/// Records per query: up to the loader's 256.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The result of looking up a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The record was there, and the cache was fresh.
    Hit,
    /// The record was not there.
    Miss,
    /// The cache was too old to answer.
    Stale,
}

/// Counts what the engine does.
#[derive(Debug)]
pub struct EngineMetrics {
    lookups: [IntCounter; 3],
    evictions: IntCounter,
    records: IntGauge,
    bytes: IntGauge,
    batch: Histogram,
    query: Histogram,
    query_failures: IntCounter,
    waiting: IntGauge,
    poll: Histogram,
    poll_failures: IntCounter,
    changes: IntCounter,
    starts: IntCounter,
    clock_steps: IntCounter,
    age: Gauge,
    noted: IntGauge,
}

impl EngineMetrics {
    pub(super) fn new(family: &Family) -> Result<Self, MetricsError> {
        let lookups = family.counters(
            "cache_lookups_total",
            "Lookups of records, by result. Includes the callers' own records, in a stream once per frame of \
             responses.",
            &["result"],
        )?;
        Ok(Self {
            lookups: ["hit", "miss", "stale"].map(|result| lookups.with_label_values(&[result])),
            evictions: family.counter(
                "cache_evictions_total",
                "Records that were evicted to free memory for \
                 others.",
            )?,
            records: family.gauge("cache_records", "Records in the cache.")?,
            bytes: family.gauge("cache_bytes", "Memory of cached records and their tables.")?,
            batch: family.histogram(
                "loader_batch_records",
                "Records that are read in one batch.",
                &BATCH_BUCKETS,
            )?,
            query: family.latency("loader_query_duration_seconds", "Duration of reading a batch.")?,
            query_failures: family
                .counter("loader_query_failures_total", "Batches that could not be read.")?,
            waiting: family.gauge(
                "loader_waiting",
                "Records that calls wait for and that no batch reads \
                 yet.",
            )?,
            poll: family.latency(
                "feed_poll_duration_seconds",
                "Time from asking what has changed to having removed it from the cache.",
            )?,
            poll_failures: family.counter("feed_poll_failures_total", "Polls that failed.")?,
            changes: family.counter("feed_changes_total", "Changed tokens that the feed received.")?,
            starts: family.counter(
                "feed_starts_total",
                "Times that the cache was emptied and started \
                 again.",
            )?,
            clock_steps: family.counter(
                "database_clock_steps_total",
                "Times that the database's clock appeared to have been changed.",
            )?,
            age: family.seconds("feed_age_seconds", "Age that a response from the cache would have now.")?,
            noted: family
                .gauge("last_use_noted", "Uses of tokens that are not written to the database yet.")?,
        })
    }

    /// Counts a lookup.
    pub fn lookup(&self, lookup: Lookup) {
        self.lookups(lookup, 1);
    }

    /// Counts several lookups.
    pub fn lookups(&self, lookup: Lookup, count: u64) {
        if let Some(counter) = self.lookups.get(lookup as usize).filter(|_| count > 0) {
            counter.inc_by(count);
        }
    }

    /// Counts an evicted record.
    pub fn evicted(&self) {
        self.evictions.inc();
    }

    /// Counts a batch that was read, or that failed.
    pub fn batch(&self, records: usize, duration: Duration, read: bool) {
        #[expect(clippy::cast_precision_loss, reason = "a few hundred at most")]
        self.batch.observe(records as f64);
        observe(&self.query, duration);
        if !read {
            self.query_failures.inc();
        }
    }

    /// Counts a poll that was handled.
    pub fn poll(&self, duration: Duration, changes: usize) {
        observe(&self.poll, duration);
        self.changes.inc_by(changes as u64);
    }

    /// Counts a poll that failed.
    pub fn poll_failed(&self) {
        self.poll_failures.inc();
    }

    /// Counts a clearing of the whole cache.
    pub fn restarted(&self) {
        self.starts.inc();
    }

    /// Counts a reading of the database's clock that is not accepted, after one that was.
    pub fn clock_stepped(&self) {
        self.clock_steps.inc();
    }

    /// Sets the gauges that are sampled when metrics are requested.
    pub fn sample(&self, sample: &EngineSample) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.records.set(number(sample.records));
        self.bytes.set(number(sample.bytes));
        self.waiting.set(number(sample.waiting));
        self.noted.set(number(sample.noted));
        // Before the first poll there is no age; NaN shows that.
        self.age.set(sample.age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }
}

/// Sizes and ages of the engine at one moment.
#[derive(Debug, Clone, Copy)]
pub struct EngineSample {
    /// Records in the cache.
    pub records: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Records that are waited for and not yet requested.
    pub waiting: u64,
    /// Uses that are not written yet.
    pub noted: u64,
    /// How old the cache is; `None` before the first poll.
    pub age: Option<Duration>,
}
