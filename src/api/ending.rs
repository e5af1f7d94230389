//! Tells the calls of a connection, and what waits for the server, that they are to end: streams would go on for as long
//! as their clients like. Told by the server and by `serve`; heard by streams, which then say so to their clients.

use tokio::sync::watch;
use tonic::Request;

/// Says that the end has begun. What is dropped has said so, too.
#[derive(Debug)]
pub struct End(watch::Sender<bool>);

/// Whether the end has begun.
#[derive(Debug, Clone)]
pub struct Ending(watch::Receiver<bool>);

impl End {
    /// Makes one that has not begun, and what hears of it.
    #[must_use]
    pub fn new() -> (Self, Ending) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Ending(receiver))
    }

    /// Begins it.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Ending {
    /// Returns that of the connection that a call came by. One that came by none ends at once.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| End::new().1)
    }

    /// Tells whether it has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.0.has_changed().unwrap_or(true)
    }

    /// Completes when it begins.
    pub async fn begun(mut self) {
        // An error means that whoever could say so is gone.
        let _ = self.0.wait_for(|begun| *begun).await;
    }
}
