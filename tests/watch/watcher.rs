//! A watcher that keeps its position.

use tokend::api::proto::{
    ChangeKind, CreateTokenRequest, TokenChange, WatchTokensRequest, WatchTokensResponse,
};
use tonic::{Status, Streaming};

use crate::support::client::{Client, created, ordinary};
use crate::support::in_time;

/// A watcher's stream.
pub(crate) struct Watcher {
    stream: Streaming<WatchTokensResponse>,
    /// The last position that it received.
    pub(crate) position: String,
}

impl Watcher {
    /// Watches the caller's own organization, or all; after a position, if one is given. Also
    /// returns the missed changes.
    pub(crate) async fn start(client: &mut Client, after: &str) -> (Self, Vec<TokenChange>) {
        let request = WatchTokensRequest { after: after.to_owned(), ..Default::default() };
        let stream = client.watch_tokens(request).await.unwrap().into_inner();
        let mut watcher = Self { stream, position: String::new() };
        let mut missed = Vec::new();
        while watcher.position.is_empty() {
            missed.extend(watcher.next().await.unwrap().changes);
        }
        (watcher, missed)
    }

    /// Starts as [`Self::start`] does, once earlier changes are no longer reported: all watchers
    /// share one read of the database, which may be slightly old.
    pub(crate) async fn start_after_all(client: &mut Client, root: &mut Client) -> Self {
        let (mut scout, _) = Self::start(root, "").await;
        let passed = created(root, CreateTokenRequest { user_id: "scout".to_owned(), ..ordinary() })
            .await
            .token
            .unwrap()
            .id;
        in_time("the scout's own change", async {
            while scout.changes(1).await.iter().all(|change| change.token_id != passed) {}
        })
        .await;
        Self::start(client, "").await.0
    }

    /// Reads the next message.
    pub(crate) async fn next(&mut self) -> Result<WatchTokensResponse, Status> {
        let message = in_time("a message", self.stream.message()).await?.expect("the stream goes on");
        if !message.position.is_empty() {
            self.position.clone_from(&message.position);
        }
        Ok(message)
    }

    /// Reads until at least this many changes have come.
    pub(crate) async fn changes(&mut self, number: usize) -> Vec<TokenChange> {
        let mut changes = Vec::new();
        while changes.len() < number {
            changes.extend(self.next().await.unwrap().changes);
        }
        changes
    }

    /// Reads until the stream ends, and returns its status.
    pub(crate) async fn end(&mut self) -> Status {
        let end = async {
            loop {
                if let Err(status) = self.next().await {
                    return status;
                }
            }
        };
        in_time("the end of the stream", end).await
    }
}

/// Returns the ids and the kinds of changes.
pub(crate) fn summaries(changes: &[TokenChange]) -> Vec<(String, ChangeKind)> {
    changes.iter().map(|change| (change.token_id.clone(), change.kind())).collect()
}
