//! The HTTP listener from outside: health for probes, metrics for Prometheus.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod metrics;
mod probes;
mod slow;
