//! What `grpc.health.v1.Health` says, overall and for the service: SERVING exactly while Verify can be
//! answered. Told by the server and its readiness job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use super::TokenApi;
use super::server::token_service_server::TokenServiceServer;

/// The name of the whole server in the health protocol.
const OVERALL: &str = "";

/// Sets what health checks are told.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    is_serving: Arc<AtomicBool>,
    reason: Arc<ArcSwap<&'static str>>,
    concern: Arc<ArcSwapOption<&'static str>>,
}

impl Health {
    /// Makes the reporter, saying `NOT_SERVING`, and the service that it speaks through.
    pub async fn new() -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = health_reporter();
        let health = Self {
            reporter,
            is_serving: Arc::default(),
            reason: Arc::new(ArcSwap::from_pointee("")),
            concern: Arc::default(),
        };
        health.not_serving("waiting for the database").await;
        (health, service)
    }

    /// Says that Verify is answered.
    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Says that Verify is not answered, and why.
    pub async fn not_serving(&self, reason: &'static str) {
        self.explain(reason);
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends every watch, so that none of them holds up the end of the server.
    pub async fn end_watches(&mut self) {
        for name in names() {
            self.reporter.clear_service_status(name).await;
        }
    }

    /// Tells what was said last.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Acquire)
    }

    /// Says why Verify is still not answered.
    pub fn explain(&self, reason: &'static str) {
        self.reason.store(Arc::new(reason));
    }

    /// Tells why Verify was not answered when that was last so.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        **self.reason.load()
    }

    /// Notes what is wrong although Verify is answered, or that nothing is; tells whether that is news.
    pub fn set_concern(&self, concern: Option<&'static str>) -> bool {
        let before = self.concern.swap(concern.map(Arc::new));
        before.as_deref().copied() != concern
    }

    /// Tells what is wrong although Verify is answered.
    #[must_use]
    pub fn concern(&self) -> Option<&'static str> {
        self.concern.load().as_deref().copied()
    }

    async fn set(&self, status: ServingStatus) {
        self.is_serving.store(matches!(status, ServingStatus::Serving), Ordering::Release);
        for name in names() {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

fn names() -> [&'static str; 2] {
    [OVERALL, <TokenServiceServer<TokenApi> as NamedService>::NAME]
}
