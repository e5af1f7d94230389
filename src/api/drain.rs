//! The signal to drain: calls of a connection end, and so do tasks that wait for the server. Without it
//! a stream would continue as long as its client likes. Sent by the server and by `serve`; streams receive
//! it and inform their clients. Not tokio-util's `CancellationToken`, which takes a lock to say whether it
//! is cancelled: streams check before each frame.

use tokio::sync::watch;
use tonic::Request;

/// Sends the signal to drain. Dropping it sends the signal, too.
#[derive(Debug)]
pub struct DrainTrigger(watch::Sender<bool>);

/// Receives the signal to drain.
#[derive(Debug, Clone)]
pub struct DrainSignal(watch::Receiver<bool>);

impl DrainTrigger {
    /// Returns a sender that has not sent the signal, and its receiver.
    #[must_use]
    pub fn new() -> (Self, DrainSignal) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), DrainSignal(receiver))
    }

    /// Sends the signal to drain.
    pub fn drain(&self) {
        self.0.send_replace(true);
    }
}

impl DrainSignal {
    /// Returns the receiver of the call's connection. A call without a connection ends at once.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| DrainTrigger::new().1)
    }

    /// Returns whether the signal has been sent.
    pub(super) fn is_draining(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Completes when the signal is sent.
    pub async fn wait(mut self) {
        // An error means that the sender was dropped.
        let _ = self.0.wait_for(|draining| *draining).await;
    }
}
