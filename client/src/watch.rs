//! What changes, as tokend tells it. Read by whoever wants to know, and by the verifier that judges by itself.

use std::time::Duration;

use time::OffsetDateTime;
use tokend_core::domain::Token;
use tokend_core::secret::TokenId;
use tonic::Streaming;

use crate::enums::ChangeKind;
use crate::error::Error;
use crate::proto;
use crate::token::{time, token};

/// A running watch.
#[derive(Debug)]
pub struct Changes {
    messages: Streaming<proto::WatchTokensResponse>,
}

/// What one message tells; nothing changed: a heartbeat.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChangeBatch {
    /// The changes, each token's in order.
    pub changes: Vec<TokenChange>,
    /// What to go on behind; `None` within a batch that the next message goes on with.
    pub position: Option<String>,
    /// Everything that was committed before this moment, by the database's clock, has been told with this message
    /// and, where it has no position, those that go on with its batch.
    pub as_of: OffsetDateTime,
    /// How often a message comes, at least.
    pub heartbeat_interval: Duration,
}

/// One change of one token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenChange {
    /// Which token.
    pub token_id: TokenId,
    /// What happened.
    pub kind: ChangeKind,
    /// Where it lives; empty: not known.
    pub organization_id: String,
    /// When, by the database's clock.
    pub change_time: Option<OffsetDateTime>,
    /// The token as it is now, to a caller that may read it.
    pub token: Option<Token>,
}

impl Changes {
    pub(crate) fn new(messages: Streaming<proto::WatchTokensResponse>) -> Self {
        Self { messages }
    }

    /// Waits for the next message; `None`: tokend has ended the watch.
    ///
    /// # Errors
    /// The watch has ended; go on behind the last position, or where that is too old
    /// ([`ErrorReason::PositionTooOld`](crate::ErrorReason::PositionTooOld)), list what there is and watch from now on.
    pub async fn next(&mut self) -> Result<Option<ChangeBatch>, Error> {
        self.messages.message().await.map_err(|status| Error::of(&status))?.map(batch).transpose()
    }
}

fn batch(message: proto::WatchTokensResponse) -> Result<ChangeBatch, Error> {
    let heartbeat = message.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
    Ok(ChangeBatch {
        changes: message.changes.into_iter().map(change).collect::<Result<_, _>>()?,
        position: Some(message.position).filter(|position| !position.is_empty()),
        as_of: time("as_of_time", message.as_of_time)?.ok_or_else(|| Error::answer("as_of_time"))?,
        heartbeat_interval: heartbeat.ok_or_else(|| Error::answer("heartbeat_interval"))?,
    })
}

fn change(message: proto::TokenChange) -> Result<TokenChange, Error> {
    Ok(TokenChange {
        token_id: TokenId::parse(&message.token_id).map_err(|_| Error::answer("token_id"))?,
        kind: ChangeKind::read(message.kind()).unwrap_or(ChangeKind::Other),
        organization_id: message.organization_id,
        change_time: time("change_time", message.change_time)?,
        token: message.token.map(token).transpose()?,
    })
}
