//! The HTTP listener from outside: health for probes, metrics for Prometheus.

mod metrics;
mod probes;
mod slow;
