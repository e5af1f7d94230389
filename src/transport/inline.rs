//! An executor for hyper that polls each new call once inside its connection's task, in order; only a call that
//! has to wait becomes a task. Most finish in that poll and are written together: as separate tasks each would be
//! allocated, woken and perhaps moved to another core, which costs more than a verdict. Used by `serve`.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::{fmt, mem};

use hyper::rt::Executor;
use hyper_util::server::graceful::GracefulConnection;

use super::activity::Activity;
use crate::telemetry::{authority, should_log};

type PendingCall = Pin<Box<dyn Future<Output = ()> + Send>>;

/// hyper's executor for one connection: collects the calls that have arrived until they are started.
#[derive(Debug, Clone, Default)]
pub(crate) struct InlineExecutor(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls(Vec<PendingCall>);

impl fmt::Debug for Calls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Calls").field(&self.0.len()).finish()
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for InlineExecutor {
    fn execute(&self, call: F) {
        self.lock().0.push(Box::pin(call));
    }
}

impl InlineExecutor {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that can be closed gracefully.
pub(crate) trait Closing {
    /// Stops accepting calls; the connection ends with the last of its calls.
    fn close(self: Pin<&mut Self>);
}

impl<C: GracefulConnection> Closing for C {
    fn close(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// A connection that reads what has arrived, then starts the calls.
pub(crate) struct InlineConnection<C> {
    connection: Pin<Box<C>>,
    arrived: InlineExecutor,
    activity: Arc<Activity>,
    peer: SocketAddr,
    /// Whether it was asked to accept no more calls.
    ending: bool,
    /// Empty between two polls; kept for its capacity.
    beginning: Vec<PendingCall>,
}

impl<C> InlineConnection<C> {
    /// Drives the `connection` of `peer`, whose executor is `arrived`.
    pub(crate) fn new(
        connection: C,
        arrived: InlineExecutor,
        activity: Arc<Activity>,
        peer: SocketAddr,
    ) -> Self {
        let (connection, beginning) = (Box::pin(connection), Vec::new());
        Self { connection, arrived, activity, peer, ending: false, beginning }
    }
}

impl<C: Closing> InlineConnection<C> {
    /// Stops accepting calls; the connection ends with the last of its calls.
    pub(crate) fn close(&mut self) {
        self.ending = true;
        self.connection.as_mut().close();
    }
}

impl<C: Future + Closing> Future for InlineConnection<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        // What the calls below write wakes this task again.
        let mut ended = this.connection.as_mut().poll(context);
        while ended.is_pending() && this.activity.take_paused() {
            ended = this.connection.as_mut().poll(context);
        }
        let has_none = || !this.activity.has_waiting() && this.arrived.lock().0.is_empty();
        let over = this.activity.is_idle() || (this.activity.is_overspent() && has_none());
        if ended.is_pending() && !this.ending && over {
            this.close();
            ended = this.connection.as_mut().poll(context);
        }
        mem::swap(&mut this.beginning, &mut this.arrived.lock().0);
        if !this.beginning.is_empty() {
            this.activity.call_began();
        }
        this.beginning.drain(..).for_each(|call| begin(call, &this.activity));
        if authority::was_refused() {
            log(this.peer);
        }
        ended
    }
}

/// Logs that HTTP/2 refused a call, and what its client has to set.
fn log(peer: SocketAddr) {
    if should_log("AUTHORITY_MALFORMED", Some(peer.ip())) {
        tracing::warn!(
            address = %peer,
            "a call was refused: its :authority is no host; set it in the client: grpc.default_authority among gRPC's channel \
             arguments, authority in Envoy's envoy_grpc"
        );
    }
}

/// Polls a call once; one that has to wait continues as a task, which polls it again and so
/// registers its own waker.
fn begin(mut call: PendingCall, activity: &Arc<Activity>) {
    let mut context = Context::from_waker(Waker::noop());
    // As in a task, a call that panics affects nothing else: dropping it resets its stream.
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context)));
    if matches!(polled, Ok(Poll::Pending)) {
        let open = activity.call_waits();
        tokio::spawn(async move {
            call.await;
            drop(open);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// A connection on which some calls arrive at each poll; it ends with the last of them.
    struct Connection {
        arrived: InlineExecutor,
        batches: VecDeque<Vec<PendingCall>>,
    }

    impl Closing for Connection {
        fn close(self: Pin<&mut Self>) {}
    }

    impl Future for Connection {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            for call in self.batches.pop_front().unwrap_or_default() {
                self.arrived.execute(call);
            }
            if self.batches.is_empty() {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    /// Drives a connection in a separate task, whose id is returned.
    async fn drive(batches: impl Into<VecDeque<Vec<PendingCall>>>) -> tokio::task::Id {
        let arrived = InlineExecutor::default();
        let connection = Connection { arrived: arrived.clone(), batches: batches.into() };
        let driven = tokio::spawn(InlineConnection::new(
            connection,
            arrived,
            Arc::default(),
            ([127, 0, 0, 1], 0).into(),
        ));
        let id = driven.id();
        driven.await.unwrap();
        id
    }

    #[tokio::test]
    async fn calls_that_need_not_wait_run_in_the_connections_task_in_order() {
        let (done, mut results) = mpsc::unbounded_channel();
        let call = |number: usize| -> PendingCall {
            let done = done.clone();
            Box::pin(async move { done.send((number, tokio::task::id())).unwrap() })
        };
        let connection = drive([vec![call(0), call(1)], vec![call(2)], vec![], vec![call(3)]]).await;
        for number in 0..4 {
            assert_eq!(results.recv().await.unwrap(), (number, connection));
        }
    }

    #[tokio::test]
    async fn a_call_that_waits_continues_in_its_own_task_even_after_its_connection() {
        let (resume, resumed) = oneshot::channel::<()>();
        let (done, results) = oneshot::channel();
        let call: PendingCall = Box::pin(async move {
            resumed.await.unwrap();
            done.send(tokio::task::id()).unwrap();
        });
        let connection = drive([vec![call]]).await;
        resume.send(()).unwrap();
        assert_ne!(results.await.unwrap(), connection);
    }

    #[tokio::test]
    #[expect(clippy::panic, reason = "what is tested")]
    async fn a_call_that_panics_ends_neither_other_calls_nor_the_connection() {
        let (done, mut results) = mpsc::unbounded_channel();
        let dropped = done.clone();
        let panics: PendingCall = Box::pin(async move {
            let _dropped = dropped;
            panic!("meant to");
        });
        let after: PendingCall = Box::pin(async move { done.send(()).unwrap() });
        drive([vec![panics, after], vec![]]).await;
        assert_eq!((results.recv().await, results.recv().await), (Some(()), None));
    }
}
