//! Spans to an OpenTelemetry collector, over OTLP. Called by `telemetry`; nothing of it exists unless an endpoint
//! is configured. Which spans are worth exporting was decided before: here whatever has no parent is, and
//! whatever has one goes the way of its parent.

use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::TelemetryError;
use super::context::TraceContext;

/// How long a batch may take to reach the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Exports until it is dropped or shut down.
#[derive(Debug)]
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Begins to export to this collector. Needs a runtime around it.
    pub(super) fn start(endpoint: &str) -> Result<(Self, SdkTracer), TelemetryError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| TelemetryError::Exporter(Box::new(error)))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(Resource::builder().with_service_name("tokend").with_attribute(version).build())
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer("tokend");
        Ok((Self(provider), tracer))
    }

    /// Sends what is left.
    pub(super) fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Puts a call's span into its trace.
pub(super) fn adopt(span: &Span, context: &TraceContext) {
    let parent = match context.parent {
        Some(parent) => parent,
        // Sampled and without a parent: the root of its trace.
        None if context.sampled => return,
        // Not sampled: some parent that says so.
        None => [1; 8],
    };
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let trace_id = opentelemetry::trace::TraceId::from_bytes(context.trace_id.0);
    let remote = SpanContext::new(trace_id, SpanId::from_bytes(parent), flags, true, TraceState::NONE);
    // Fails only where no exporter is.
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}
