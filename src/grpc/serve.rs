//! gRPC's connections from their first frame to their last: HTTP/2 as hyper speaks it, and HTTP/1 for browsers where
//! that is allowed. Called by the server. What a call is answered, `Direct` knows.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tonic::codegen::http::Request;

use super::direct::Direct;
use super::turn::{Arrived, InTurn};
use crate::listener::Incoming;

/// The most bytes of metadata that a call may bring.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub struct Transport {
    /// Calls at once on each.
    pub streams: u32,
    /// Whether HTTP/1 is spoken, too.
    pub http1: bool,
}

/// Serves the connections that come until `shutdown` completes, then waits for their calls to end.
pub async fn serve(
    mut incoming: Incoming,
    direct: Direct,
    transport: Transport,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let accept = async {
        while let Some(connection) = incoming.next().await {
            let peer = connection.peer();
            tracing::trace!(address = %peer.address, "a connection begins");
            let (answering, arrived) = (Arc::new(direct.answering(peer)), Arrived::default());
            let service = service_fn(move |request: Request<Body>| {
                let answering = Arc::clone(&answering);
                async move { Ok::<_, Infallible>(answering.answer(request).await) }
            });
            let speaking = transport.speak(arrived.clone());
            let speaking = speaking.serve_connection(TokioIo::new(connection), service).into_owned();
            let serving = InTurn::new(graceful.watch(speaking), arrived);
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::debug!(error = &*error, "a connection failed");
                }
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    graceful.shutdown().await;
}

impl Transport {
    fn speak(self, arrived: Arrived) -> Builder<Arrived> {
        let mut builder = Builder::new(arrived);
        if !self.http1 {
            builder = builder.http2_only();
        }
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            // gRPC has no use for it.
            .auto_date_header(false);
        // How long a request's headers may take, which is hyper's default once there is a timer.
        builder.http1().timer(TokioTimer::new());
        builder
    }
}
