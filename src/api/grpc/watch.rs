//! `WatchTokens`: the hub's changes that one caller may see, as fast as it reads. One task per watcher;
//! only the current message is kept for a watcher that does not read. Called by the service alone.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use prost::Message as _;
use time::OffsetDateTime;
use tokio::sync::{broadcast, mpsc};
use tonic::Status;
use tracing::Span;

use super::reserved_body::MessageReservations;
use super::{convert, fields};
use crate::admission::response_memory::{Reservation, ResponseMemory};
use crate::api::drain::DrainSignal;
use crate::api::error::CallError;
use crate::api::proto::{TokenChange, WatchTokensRequest, WatchTokensResponse};
use crate::api::status;
use crate::changefeed::hub::{Batch, Hub, Watch, WatchError, WatchPosition};
use crate::domain::{Caller, FieldError, OrganizationId, Permission, Violations, size};
use crate::runtime::panics;
use crate::secret::CurrentKeyring;
use crate::store::Change;
use crate::verify::{ClientKey, Credential, Engine};

/// How long a watcher may leave a message unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of changes in one message.
const MESSAGE_BYTES: usize = 1 << 20;

/// The error for a position that was not issued here, or not for this organization.
const FOREIGN_POSITION: FieldError = FieldError::Rule("is not a position from a watch of this organization");

/// The messages of one call, each with its memory reservation.
pub struct WatchStream {
    receiver: mpsc::Receiver<Message>,
    reservations: MessageReservations,
}

type Message = Result<(WatchTokensResponse, Reservation), Status>;

/// One watcher.
pub(super) struct Watcher {
    pub(super) engine: Arc<Engine>,
    pub(super) hub: Arc<Hub>,
    pub(super) keyring: Arc<CurrentKeyring>,
    pub(super) credential: Credential,
    pub(super) response_memory: Arc<ResponseMemory>,
}

impl Watcher {
    /// Checks the request and starts the watcher's task.
    pub(super) async fn start(
        self,
        message: &WatchTokensRequest,
        drain: DrainSignal,
    ) -> Result<WatchStream, CallError> {
        let caller = self.credential.caller();
        caller.require(Permission::Watch)?;
        let named = convert::organization(&message.organization_id)?;
        let organization = caller.watched_organization(named)?;
        let after = match &*message.after {
            "" => None,
            text => Some(
                WatchPosition::parse(text, organization.as_ref(), &self.keyring.peek())
                    .map_err(|_| Violations::one("after", &FOREIGN_POSITION))?,
            ),
        };
        let watch = self.hub.subscribe().await?;
        // Capacity 2: one slot is kept for the stream's last message, which must not wait for a slow client.
        let (sender, receiver) = mpsc::channel(2);
        let last = sender.clone().try_reserve_owned().map_err(|_| WatchError::TooSlow)?;
        let task = WatcherTask { watcher: self, organization, sender, span: Span::current() };
        tokio::spawn(task.run(watch, after, drain, last));
        Ok(WatchStream { receiver, reservations: MessageReservations::default() })
    }
}

/// A watcher's task.
struct WatcherTask {
    watcher: Watcher,
    organization: Option<OrganizationId>,
    sender: mpsc::Sender<Message>,
    span: Span,
}

impl WatcherTask {
    async fn run(
        mut self,
        watch: Watch,
        after: Option<WatchPosition>,
        drain: DrainSignal,
        last: mpsc::OwnedPermit<Message>,
    ) {
        let sender = self.sender.clone();
        let status = tokio::select! {
            outcome = panics::caught(self.send_all(watch, after)) => match outcome.unwrap_or_else(|panicked| Err(panicked.into())) {
                Ok(()) => return,
                Err(error) => {
                    let status = Status::from(&error);
                    self.span.in_scope(|| status::log(&error, &status, None, None));
                    status
                }
            },
            () = drain.wait() => status::shutting_down(),
            () = sender.closed() => return,
        };
        last.send(Err(status));
    }

    /// Sends missed changes, then new ones, until the watcher has gone or can no longer be sent to.
    async fn send_all(&mut self, mut watch: Watch, after: Option<WatchPosition>) -> Result<(), CallError> {
        let begin = watch.position.clone();
        if let Some(after) = after {
            let mut missed = self.watcher.hub.catch_up(after, begin.clone());
            while let Some(changes) = missed.next().await? {
                let _reservation = self.reserve(changes.iter().map(weight).sum()).await?;
                self.send_changes(&changes, None, watch.as_of).await?;
            }
        }
        self.send_changes(&[], Some(&begin), watch.as_of).await?;
        loop {
            match watch.batches.recv().await {
                Ok(batch) => {
                    let Batch { changes, position, as_of, is_continuous } = &*batch;
                    if !is_continuous {
                        return Err(WatchError::TooOld.into());
                    }
                    self.send_changes(changes, position.as_ref(), *as_of).await?;
                }
                Err(broadcast::error::RecvError::Lagged(_)) => return Err(WatchError::TooSlow.into()),
                // The hub ends with the server.
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Sends a batch in as many messages as needed; the last one has the position.
    async fn send_changes(
        &mut self,
        changes: &[Change],
        position: Option<&WatchPosition>,
        as_of: OffsetDateTime,
    ) -> Result<(), CallError> {
        let Watcher { engine, credential, .. } = &mut self.watcher;
        engine.judge_again(credential).await?;
        let caller = self.watcher.credential.caller();
        caller.require(Permission::Watch)?;
        let empty = || empty(as_of, self.watcher.hub.heartbeat());
        let relevant = changes.iter().filter(|change| concerns(change, self.organization.as_ref()));
        let mut message = empty();
        let mut bytes = 0;
        for change in relevant.map(|change| shown(change, caller, as_of)) {
            let size = change.encoded_len();
            if size.saturating_add(bytes) > MESSAGE_BYTES {
                self.send(mem::replace(&mut message, empty())).await?;
                bytes = 0;
            }
            bytes = size.saturating_add(bytes);
            message.changes.push(change);
        }
        match position {
            Some(position) => {
                message.position = position.render(self.organization.as_ref(), &self.watcher.keyring.peek());
            }
            // Part of a larger batch, with nothing for this watcher.
            None if message.changes.is_empty() => return Ok(()),
            None => {}
        }
        self.send(message).await
    }

    async fn send(&self, message: WatchTokensResponse) -> Result<(), CallError> {
        let reservation = self.reserve(message.encoded_len()).await?;
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.sender.send(Ok((message, reservation)))).await;
        // A client that has gone is noticed elsewhere.
        let _ = sent.map_err(|_| WatchError::TooSlow)?;
        Ok(())
    }

    async fn reserve(&self, bytes: usize) -> Result<Reservation, CallError> {
        let share = ClientKey::from(self.watcher.credential.caller());
        Ok(self.watcher.response_memory.wait_to_reserve(share, bytes, SEND_TIMEOUT).await?)
    }
}

impl WatchStream {
    /// Returns where the reservations of the last messages are put.
    pub(super) fn reservations(&self) -> MessageReservations {
        self.reservations.clone()
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchTokensResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let received = ready!(self.receiver.poll_recv(context));
        Poll::Ready(received.map(|received| {
            received.map(|(message, reservation)| {
                self.reservations.add(reservation);
                message
            })
        }))
    }
}

fn empty(as_of: OffsetDateTime, heartbeat: Duration) -> WatchTokensResponse {
    WatchTokensResponse {
        changes: Vec::new(),
        position: String::new(),
        as_of_time: Some(fields::timestamp(as_of)),
        heartbeat_interval: Some(fields::proto_duration(heartbeat)),
    }
}

/// Returns approximately how many bytes a change takes.
fn weight(change: &Change) -> usize {
    change.token.as_ref().map_or(0, size::of_token).saturating_add(size_of::<Change>())
}

/// Returns whether a change is of the organization; a change whose organization is unknown concerns
/// every watcher.
fn concerns(change: &Change, organization: Option<&OrganizationId>) -> bool {
    match (&change.organization_id, organization) {
        (Some(of_change), Some(watched)) => of_change == watched,
        _ => true,
    }
}

/// Returns what a caller may see of a change.
fn shown(change: &Change, caller: &Caller, now: OffsetDateTime) -> TokenChange {
    let organization = change.organization_id.as_ref();
    let readable = caller.require(Permission::ReadAll).is_ok()
        && organization.is_some_and(|organization| caller.reach().includes(organization));
    TokenChange {
        token_id: change.id.to_string(),
        kind: convert::change_kind(change.kind).into(),
        organization_id: organization.map_or_else(String::new, |id| id.as_str().to_owned()),
        change_time: Some(fields::timestamp(change.change_time)),
        token: change.token.as_ref().filter(|_| readable).map(|token| (token, now).into()),
    }
}
