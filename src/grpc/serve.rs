//! gRPC's connections from their first frame to their last: HTTP/2 as hyper speaks it, and HTTP/1 for browsers where
//! that is allowed. Called by the server. What a call is answered, `Direct` knows.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::{mpsc, watch};
use tonic::codegen::http::Request;

use super::direct::Direct;
use super::service::drained;
use super::turn::{Arrived, InTurn};
use crate::listener::{Connection, Incoming, Peer};

/// The most bytes of metadata that a call may bring, and of the head of a request of HTTP/1.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// How many bytes a call may send that are not read yet; a message may be longer, since it is read as it comes.
const STREAM_WINDOW: u32 = 16 * 1024;

/// The same of all calls of a connection: this may arrive before any of them is looked at. Later, questions of streams
/// alone are left unread, while others wait for their answers. Half of it is what h2 lets small frames cost that are not
/// read, 256 bytes each less their length, which is enough for the windows of some streams.
const CONNECTION_WINDOW: u32 = 384 * 1024;

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub struct Transport {
    /// Calls at once on each.
    pub streams: u32,
    /// Whether HTTP/1 is spoken, too.
    pub http1: bool,
    /// How long a request of HTTP/1 is waited for.
    pub head: Duration,
}

/// Serves the connections that come until `shutdown` completes, refuses those that come then, and waits for the calls
/// to end.
pub async fn serve(
    mut incoming: Incoming,
    direct: Direct,
    transport: Transport,
    shutdown: impl Future<Output = ()>,
) {
    let (ending, ended) = watch::channel(false);
    let (alive, mut gone) = mpsc::channel::<Infallible>(1);
    let accept = async {
        while let Some(connection) = incoming.next().await {
            let serving = transport.serve(connection, &direct, ended.clone());
            let alive = alive.clone();
            tokio::spawn(async move {
                serving.await;
                drop(alive);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    // Closes the listener.
    drop(incoming);
    ending.send_replace(true);
    drop(alive);
    gone.recv().await;
}

impl Transport {
    /// Serves a connection until its peer or the server ends it.
    fn serve(
        self,
        connection: Connection,
        direct: &Direct,
        ending: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (peer, activity) = (connection.peer(), connection.activity());
        tracing::trace!(address = %peer.address, "a connection begins");
        let (answering, arrived) = (Arc::new(direct.answering(peer.clone())), Arrived::default());
        let service = service_fn(move |request: Request<Body>| {
            let answering = Arc::clone(&answering);
            async move { Ok::<_, Infallible>(answering.answer(request).await) }
        });
        let speaking = self.speak(arrived.clone());
        let speaking = speaking.serve_connection(TokioIo::new(connection), service).into_owned();
        let mut serving = InTurn::new(speaking, arrived, activity);
        async move {
            let outcome = tokio::select! {
                biased;
                outcome = &mut serving => outcome,
                () = drained(ending) => {
                    serving.close();
                    serving.await
                }
            };
            if let Err(error) = outcome {
                log(&peer, &*error);
            }
        }
    }

    fn speak(self, arrived: Arrived) -> Builder<Arrived> {
        let mut builder = Builder::new(arrived);
        if !self.http1 {
            builder = builder.http2_only();
        }
        // Honest clients give up all that they have at once, when their time is over.
        let resets = self.streams as usize;
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_pending_accept_reset_streams(resets)
            // gRPC has no use for it.
            .auto_date_header(false);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(MAX_HEADER_BYTES as usize);
        builder
    }
}

/// Says that a connection failed: at info where its peer was cut off for what it did, since it may be an honest one.
fn log(peer: &Peer, error: &(dyn Error + 'static)) {
    let cut_off = std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .find(|error| error.is_go_away() && error.is_library());
    if let Some(why) = cut_off {
        tracing::info!(address = %peer.address, %why, "a peer was cut off");
    } else {
        tracing::debug!(error, "a connection failed");
    }
}
