//! Changes of tokens, as tokend reports them. Used by applications, and by the local verifier.

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

/// One message of a watch; without changes it is a heartbeat.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChangeBatch {
    /// The changes, those of one token in order.
    pub changes: Vec<TokenChange>,
    /// The position to resume after; `None` within a batch that continues in the next message.
    pub position: Option<String>,
    /// Everything that was committed before this time, by the database's clock, has been reported
    /// with this message and, if it has no position, the rest of its batch.
    pub as_of: OffsetDateTime,
    /// The longest interval between messages.
    pub heartbeat_interval: Duration,
}

/// One change of one token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TokenChange {
    /// The token.
    pub token_id: TokenId,
    /// What happened.
    pub kind: ChangeKind,
    /// The token's organization; empty: not known.
    pub organization_id: String,
    /// The time, by the database's clock.
    pub change_time: Option<OffsetDateTime>,
    /// The current token, if the caller may read it.
    pub token: Option<Token>,
}

impl Changes {
    pub(crate) fn new(messages: Streaming<proto::WatchTokensResponse>) -> Self {
        Self { messages }
    }

    /// Waits for the next message; `None`: tokend has ended the watch.
    ///
    /// # Errors
    /// The watch has ended; resume after the last position, or if that is too old
    /// ([`ErrorReason::PositionTooOld`](crate::ErrorReason::PositionTooOld)), list all tokens and
    /// watch from now on.
    pub async fn next(&mut self) -> Result<Option<ChangeBatch>, Error> {
        self.messages.message().await.map_err(|status| Error::of(&status))?.map(batch).transpose()
    }
}

fn batch(message: proto::WatchTokensResponse) -> Result<ChangeBatch, Error> {
    let heartbeat = message.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
    Ok(ChangeBatch {
        changes: message.changes.into_iter().map(change).collect::<Result<_, _>>()?,
        position: Some(message.position).filter(|position| !position.is_empty()),
        as_of: time("as_of_time", message.as_of_time)?
            .ok_or_else(|| Error::invalid_response("as_of_time"))?,
        heartbeat_interval: heartbeat.ok_or_else(|| Error::invalid_response("heartbeat_interval"))?,
    })
}

fn change(message: proto::TokenChange) -> Result<TokenChange, Error> {
    Ok(TokenChange {
        token_id: TokenId::parse(&message.token_id).map_err(|_| Error::invalid_response("token_id"))?,
        kind: ChangeKind::read(message.kind()).unwrap_or(ChangeKind::Other),
        organization_id: message.organization_id,
        change_time: time("change_time", message.change_time)?,
        token: message.token.map(token).transpose()?,
    })
}
