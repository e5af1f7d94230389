//! The locks of a transaction and the time it judges by. Its caller is judged again from its own row,
//! locked FOR SHARE, so that no credential acts after its revocation has committed; and by the clock
//! after the last lock, so that none acts after its own expiration.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::clock::ClockReading;
use super::columns::Time;
use super::rows::{self, TokenRow, select_tokens, token_query};
use super::transaction::{Transaction, TransactionError};
use crate::clock::BootInstant;
use crate::domain::{Caller, CredentialError, Principal, Token};
use crate::secret::TokenId;

/// The longest duration of a statement whose reading of the clock is used: much shorter than the tolerance of readings.
const MAX_CLOCK_READ_TIME: Duration = Duration::from_millis(500);

/// A caller with its own row, locked until the transaction ends.
#[derive(Debug)]
pub struct LockedCaller<'a> {
    caller: &'a Caller,
    /// The token of the caller, or that vouches for it; `None`: there is no such row, or none is needed.
    token: Option<Token>,
    /// When the caller's portal session is over; `None`: it has ended, or the caller is in none.
    portal_end: Option<OffsetDateTime>,
}

/// A token that is to be changed, with its own row, locked until the transaction ends.
#[derive(Debug)]
pub struct LockedTarget {
    /// The token; `None`: there is no such token.
    pub token: Option<Token>,
    /// A time after the lock.
    pub lock_time: OffsetDateTime,
    /// Its family and its generation there; `None`: it has not taken part in any rotation.
    pub(super) position: Option<(Uuid, i32)>,
}

impl Transaction {
    /// Locks the caller's row, and that of its portal session. If the caller's own token is the `target` to be changed,
    /// its row is locked FOR UPDATE at once: two callers that first held it FOR SHARE would deadlock.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_caller<'a>(
        &mut self,
        caller: &'a Caller,
        target: Option<TokenId>,
    ) -> Result<LockedCaller<'a>, StoreError> {
        // Before the token: who disables a user ends the sessions first, then locks the tokens.
        let portal_end = match &caller.principal {
            Principal::Portal(portal) => self.lock_portal(portal.session_id).await?,
            _ => None,
        };
        let token = match caller.principal.token_id() {
            Some(id) if target == Some(id) => self.lock_token(id).await?,
            Some(id) => {
                let row = select_tokens!("WHERE id = $1 FOR SHARE", rows::uuid(id)).fetch_optional(self);
                row.await?.map(Token::try_from).transpose()?
            }
            None => None,
        };
        Ok(LockedCaller { caller, token, portal_end })
    }

    /// Reads the database's clock: call it after the last lock.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn time(&mut self) -> Result<OffsetDateTime, StoreError> {
        clock(self).await
    }

    /// Takes an advisory lock, unless another transaction holds it; returns whether it did.
    pub(super) async fn try_lock(&mut self, key: i64) -> Result<bool, StoreError> {
        let row = sqlx::query!(r#"SELECT pg_try_advisory_xact_lock($1) AS "taken!""#, key);
        Ok(row.fetch_one(self).await?.taken)
    }

    /// Reads a token that is to be changed, and locks its row FOR UPDATE.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_token(&mut self, id: TokenId) -> Result<Option<Token>, StoreError> {
        select_tokens!("WHERE id = $1 FOR UPDATE", rows::uuid(id))
            .fetch_optional(self)
            .await?
            .map(Token::try_from)
            .transpose()
    }

    /// Locks a token like [`Self::lock_token`], and reads the clock after that, in one statement.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_target(&mut self, id: TokenId) -> Result<LockedTarget, StoreError> {
        let sent = BootInstant::now();
        // Postgres evaluates what is selected from a subquery with a lock only when it has the lock.
        let row = token_query!(
            query,
            r#"SELECT clock_timestamp() AS "now!: Time", t.family_id AS "family_id?", t.generation AS "generation!","#,
            "(SELECT u.last_use_time FROM token_uses u WHERE u.token_id = t.id),
             (SELECT r.refusal FROM token_refusals r WHERE r.token_id = t.id), NULL::timestamptz",
            [r#"AS "token!: TokenRow" FROM (SELECT * FROM tokens WHERE id = $1 FOR UPDATE) AS t"#],
            rows::uuid(id)
        )
        .fetch_optional(&mut *self)
        .await?;
        let Some(row) = row else {
            return Ok(LockedTarget { token: None, lock_time: clock(self).await?, position: None });
        };
        let lock_time = if BootInstant::now().since(sent) < MAX_CLOCK_READ_TIME {
            self.clock().accepted(ClockReading { sent, time: row.now.clock()? })
        } else {
            // Compared with when it was requested, such a reading looks as if the clock had been set.
            clock(self).await?
        };
        let position = row.family_id.map(|family| (family, row.generation));
        Ok(LockedTarget { token: Some(row.token.try_into()?), lock_time, position })
    }
}

impl LockedCaller<'_> {
    /// Returns the caller's own token, as it is under its lock.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        // That of a portal session is not the caller's own.
        self.token.as_ref().filter(|_| matches!(self.caller.principal, Principal::Token(_)))
    }

    /// Judges the caller by the database's clock, and returns that time. Call it after the last lock:
    /// during the wait for it, the credential may have expired.
    ///
    /// # Errors
    /// The credential is no longer valid, the portal session is over, or nothing vouches for its person any more;
    /// [`StoreError`], as for every statement.
    pub async fn judge(
        &self,
        transaction: &mut Transaction,
    ) -> Result<(Caller, OffsetDateTime), TransactionError> {
        let now = clock(transaction).await?;
        Ok((self.judge_at(now)?, now))
    }

    /// Judges the caller like [`Self::judge`], at a time after the last lock that is known already.
    ///
    /// # Errors
    /// The credential is no longer valid, or the portal session is over.
    pub fn judge_at(&self, now: OffsetDateTime) -> Result<Caller, CredentialError> {
        let peer = self.caller.peer();
        match (&self.caller.principal, &self.token) {
            (Principal::Token(_), token) => {
                Caller::from_token(token.as_ref().ok_or(CredentialError::Invalid)?, peer, now)
            }
            (Principal::Portal(portal), Some(token)) if self.portal_end.is_some_and(|end| now < end) => {
                Caller::in_portal(portal, Caller::vouching_token(token, now), peer)
            }
            (Principal::Portal(_), _) => Err(CredentialError::PortalOver),
            _ => Ok(self.caller.clone()),
        }
    }
}

/// Reads the database's clock, if it is accepted, else its expected time. `now()` would be the time
/// before everything that the transaction has waited for.
pub(super) async fn clock(transaction: &mut Transaction) -> Result<OffsetDateTime, StoreError> {
    let sent = BootInstant::now();
    let row =
        sqlx::query!(r#"SELECT clock_timestamp() AS "now!: Time""#).fetch_one(&mut *transaction).await?;
    Ok(transaction.clock().accepted(ClockReading { sent, time: row.now.clock()? }))
}
