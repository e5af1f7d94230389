//! Exports spans to an OpenTelemetry collector over OTLP. Called by `telemetry`; exists only if an
//! endpoint is configured. Sampling was decided earlier: here a span without a parent is exported,
//! and any other follows its parent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
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
    /// Starts to export to this collector. Must be called within a runtime.
    pub(super) fn start(endpoint: &str) -> Result<(Self, SdkTracer), TelemetryError> {
        let channel = channel(endpoint).map_err(|error| TelemetryError::Exporter(Box::new(error)))?;
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| TelemetryError::Exporter(Box::new(error)))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(Resource::builder().with_service_name("tokend").with_attribute(version).build())
            .with_batch_exporter(LoggingExporter { exporter, failing: AtomicBool::new(false) })
            .build();
        let tracer = provider.tracer("tokend");
        Ok((Self(provider), tracer))
    }

    /// Sends the remaining spans.
    pub(super) fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Creates a channel that connects on first use; with TLS, the server's CA must be trusted by the system.
fn channel(endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    let encrypted = endpoint.starts_with("https://");
    let mut endpoint = Endpoint::from_shared(endpoint.to_owned())?.timeout(EXPORT_TIMEOUT);
    if encrypted {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    Ok(endpoint.connect_lazy())
}

/// How many spans were exported and lost since the last read. Global, since the process has one exporter.
static EXPORTED: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Returns how many spans were exported and how many were lost since the last call.
pub(super) fn take_counts() -> (u64, u64) {
    (EXPORTED.swap(0, Ordering::Relaxed), LOST.swap(0, Ordering::Relaxed))
}

/// An exporter that logs failures: once when they start, once when they end.
#[derive(Debug)]
struct LoggingExporter {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        let failed = outcome.is_err();
        if failed { &LOST } else { &EXPORTED }.fetch_add(spans, Ordering::Relaxed);
        let failed_before = self.failing.swap(failed, Ordering::Relaxed);
        match &outcome {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "spans cannot be exported, and are lost until the collector takes them");
            }
            Ok(()) if failed_before => tracing::info!("spans are exported again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Puts a call's span into its trace.
pub(super) fn adopt(span: &Span, context: &TraceContext) {
    let parent = match context.parent {
        Some(parent) => parent,
        // Sampled and without a parent: the root of its trace.
        None if context.sampled => return,
        // Not sampled: any parent with that flag.
        None => [1; 8],
    };
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let trace_id = opentelemetry::trace::TraceId::from_bytes(context.trace_id.0);
    let remote = SpanContext::new(trace_id, SpanId::from_bytes(parent), flags, true, TraceState::NONE);
    // Fails only without an exporter.
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}
