//! gRPC connections from the first frame to the last: HTTP/2 by hyper, and HTTP/1 for browsers
//! where allowed. Called by the server. `CallDispatcher` decides what each call is answered.

use std::error::Error;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use tonic::codegen::http::Request;

use super::fast_path::CallDispatcher;
use crate::api::drain::{DrainSignal, DrainTrigger};
use crate::api::limits::MAX_HEADER_BYTES;
use crate::auth::peer::Peer;
use crate::transport::connection::Connection;
use crate::transport::inline::{InlineConnection, InlineExecutor};
use crate::transport::listener::Incoming;

/// The most unread bytes of a call. A message may be longer, since it is read as it arrives.
const STREAM_WINDOW: u32 = 16 * 1024;

/// The most unread bytes of all calls of a connection: so much may arrive before any call is looked
/// at. Later only the requests of streams stay unread, while others wait for their responses. h2
/// charges an unread small frame 256 bytes less its length, up to half of this window, which is
/// enough for the windows of some streams.
const CONNECTION_WINDOW: u32 = 384 * 1024;

/// How long streams may take to end after the signal.
const STREAM_END_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// The most concurrent calls on each.
    pub streams: u32,
    /// Whether HTTP/1 is supported, too.
    pub http1: bool,
    /// How long an HTTP/1 request's head may take.
    pub head: Duration,
    /// How long the calls of a connection past its maximum age may continue.
    pub age_grace: Duration,
}

/// Serves new connections until `shutdown` completes, then closes the listener and waits for the
/// open calls to end.
pub async fn serve(
    mut incoming: Incoming,
    dispatcher: CallDispatcher,
    limits: ConnectionLimits,
    shutdown: impl Future<Output = ()>,
) {
    let (trigger, drain) = DrainTrigger::new();
    let open = TaskTracker::new();
    let accept = async {
        while let Some(connection) = incoming.next().await {
            open.spawn(limits.serve(connection, &dispatcher, drain.clone()));
        }
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    // Closes the listener.
    drop(incoming);
    trigger.drain();
    open.close();
    open.wait().await;
}

impl ConnectionLimits {
    /// Serves a connection until its peer or the server ends it, or it reaches its maximum age.
    fn serve(
        self,
        connection: Connection,
        dispatcher: &CallDispatcher,
        draining: DrainSignal,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (peer, activity, due) = (Peer::from(&connection), connection.activity(), connection.due());
        let (trigger, drain) = DrainTrigger::new();
        tracing::trace!(address = %peer.address, "a connection begins");
        let (dispatcher, arrived) =
            (Arc::new(dispatcher.for_connection(peer.clone(), drain)), InlineExecutor::default());
        let service = service_fn(move |request: Request<Body>| dispatcher.answer(request));
        let speaking = self.speak(arrived.clone());
        let speaking = speaking.serve_connection(TokioIo::new(connection), service).into_owned();
        let mut serving = InlineConnection::new(speaking, arrived, activity, peer.address);
        async move {
            let outcome = tokio::select! {
                biased;
                outcome = &mut serving => Some(outcome),
                () = draining.clone().wait() => None,
                () = reached(due) => None,
            };
            let outcome = match outcome {
                None => {
                    serving.close();
                    self.finish(&mut serving, draining, trigger).await
                }
                outcome => outcome,
            };
            match outcome {
                None => {
                    tracing::debug!(address = %peer.address, "calls ran longer than their connection may; \
                         they are cut off");
                }
                Some(Err(error)) => log(&peer, &*error),
                Some(Ok(())) => {}
            }
        }
    }

    /// Waits for the last calls of a connection that accepts no more; `None` if some took too long.
    /// Streams are signalled to end: at once when the server ends, else after the grace, within
    /// which short ones may end by themselves.
    async fn finish<T>(
        self,
        mut serving: impl Future<Output = T> + Unpin,
        draining: DrainSignal,
        trigger: DrainTrigger,
    ) -> Option<T> {
        tokio::select! {
            biased;
            outcome = &mut serving => return Some(outcome),
            () = draining.clone().wait() => {}
            () = sleep(self.age_grace) => {}
        }
        trigger.drain();
        if draining.is_draining() {
            return Some(serving.await);
        }
        timeout(STREAM_END_TIMEOUT, serving).await.ok()
    }

    fn speak(self, arrived: InlineExecutor) -> Builder<InlineExecutor> {
        let mut builder = Builder::new(arrived);
        if !self.http1 {
            builder = builder.http2_only();
        }
        // Honest clients cancel all their calls at once when their deadline passes.
        let resets = self.streams as usize;
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_pending_accept_reset_streams(resets)
            // gRPC does not use it.
            .auto_date_header(false);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(MAX_HEADER_BYTES as usize);
        builder
    }
}

/// Completes at this instant; never without one.
async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Logs that a connection failed: at info where the peer was cut off for what it sent, since it may
/// be an honest one.
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
