//! The state of `grpc.health.v1.Health`, overall and for the service: SERVING exactly while Verify
//! can be answered. Set by the server and its jobs.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::drain::DrainSignal;
use super::proto::SERVICE;
use proto::health_server::{Health as HealthService, HealthServer};
use proto::{HealthListRequest, HealthListResponse};

/// The service, generated from `third-party/grpc/health/v1/health.proto`: tonic-health has the
/// messages, but not List.
#[expect(clippy::pedantic, missing_docs, reason = "generated")]
pub mod proto {
    tonic::include_proto!("grpc.health.v1");

    /// The encoded `FileDescriptorSet` of the contract, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("health_descriptor");
}

/// The names with a status: the server as a whole, and its service.
const NAMES: [&str; 2] = ["", SERVICE];

/// Sets the status that health checks return.
#[derive(Debug, Clone)]
pub struct Health {
    current: watch::Sender<ServingStatus>,
    reason: Arc<ArcSwap<&'static str>>,
    concern: Arc<ArcSwapOption<&'static str>>,
}

impl Default for Health {
    /// Creates a health state of `NOT_SERVING`.
    fn default() -> Self {
        Self {
            current: watch::Sender::new(ServingStatus::NotServing),
            reason: Arc::new(ArcSwap::from_pointee("waiting for the database")),
            concern: Arc::default(),
        }
    }
}

impl Health {
    /// Creates the gRPC health service.
    #[must_use]
    pub fn server(&self) -> HealthServer<impl HealthService + use<>> {
        HealthServer::new(StatusService(self.current.clone()))
    }

    /// Sets the status to SERVING: Verify can be answered.
    pub fn serving(&self) {
        self.set(ServingStatus::Serving);
    }

    /// Sets the status to `NOT_SERVING`, with a reason.
    pub fn not_serving(&self, reason: &'static str) {
        self.explain(reason);
        self.set(ServingStatus::NotServing);
    }

    /// Returns whether the current status is SERVING.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.current.borrow() == ServingStatus::Serving
    }

    /// Updates the reason why Verify cannot be answered.
    pub fn explain(&self, reason: &'static str) {
        self.reason.store(Arc::new(reason));
    }

    /// Returns the last reason why Verify could not be answered.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        **self.reason.load()
    }

    /// Sets what is wrong although Verify can be answered, or `None`; returns whether that is a change.
    pub fn set_concern(&self, concern: Option<&'static str>) -> bool {
        let before = self.concern.swap(concern.map(Arc::new));
        before.as_deref().copied() != concern
    }

    /// Returns what is wrong although Verify can be answered.
    #[must_use]
    pub fn concern(&self) -> Option<&'static str> {
        self.concern.load().as_deref().copied()
    }

    fn set(&self, status: ServingStatus) {
        self.current.send_if_modified(|current| std::mem::replace(current, status) != status);
    }
}

/// The service.
struct StatusService(watch::Sender<ServingStatus>);

impl StatusService {
    fn now(&self) -> HealthCheckResponse {
        HealthCheckResponse { status: (*self.0.borrow()).into() }
    }
}

#[tonic::async_trait]
impl HealthService for StatusService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if NAMES.contains(&&*request.get_ref().service) {
            Ok(Response::new(self.now()))
        } else {
            Err(Status::not_found("there is no such service here"))
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = NAMES.map(|name| (name.to_owned(), self.now())).into();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let is_known = NAMES.contains(&&*request.get_ref().service);
        let drain = DrainSignal::of(&request);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send_changes(self.0.subscribe(), is_known, drain, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends status changes until the watcher has gone or its connection ends; pending changes are sent
/// before the end.
async fn send_changes(
    mut current: watch::Receiver<ServingStatus>,
    is_known: bool,
    drain: DrainSignal,
    watcher: mpsc::Sender<Result<HealthCheckResponse, Status>>,
) {
    let mut drain = std::pin::pin!(drain.wait());
    loop {
        let now = *current.borrow_and_update();
        let status = if is_known { now } else { ServingStatus::ServiceUnknown };
        if watcher.send(Ok(HealthCheckResponse { status: status.into() })).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            changed = current.changed(), if is_known => if changed.is_err() { return },
            () = &mut drain => return,
            () = watcher.closed() => return,
        }
    }
}
