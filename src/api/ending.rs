//! Signals the calls of a connection, and tasks that wait for the server, to end; streams would
//! otherwise continue as long as their clients like. Sent by the server and by `serve`; streams
//! receive it and inform their clients. Not tokio-util's `CancellationToken`, which takes a lock to say
//! whether it is cancelled: streams ask before each frame.

use tokio::sync::watch;
use tonic::Request;

/// Sends the signal to end. Dropping it sends the signal, too.
#[derive(Debug)]
pub struct End(watch::Sender<bool>);

/// Receives the signal to end.
#[derive(Debug, Clone)]
pub struct Ending(watch::Receiver<bool>);

impl End {
    /// Returns a sender that has not sent the signal, and its receiver.
    #[must_use]
    pub fn new() -> (Self, Ending) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Ending(receiver))
    }

    /// Sends the signal to end.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Ending {
    /// Returns the receiver of the call's connection. A call without a connection ends at once.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| End::new().1)
    }

    /// Returns whether the signal has been sent.
    pub(super) fn has_begun(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Completes when the signal is sent.
    pub async fn begun(mut self) {
        // An error means that the sender is gone.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}
