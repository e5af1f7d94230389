//! Requests that may be repeated with a request id. Called by creation and rotation, in their
//! transactions, and by the purge. Knows neither secrets nor request ids, only the MACs by which they
//! are found and compared.

use time::OffsetDateTime;

use super::columns::Lenient;
use super::locks::clock;
use super::rows::{self, TokenRow, select_tokens};
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::clock::BootInstant;
use crate::domain::{Caller, Token};
use crate::secret::{Mac, RequestSalt, TokenId};

/// A request that is being processed for the first time.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// The MAC by which it is found again.
    pub request_mac: [u8; 32],
    /// The MAC of what it asks for, with the key from which its secret is derived.
    pub body_mac: Mac,
    /// The salt from which its secret is derived too.
    pub salt: RequestSalt,
    /// The token in its response.
    pub token_id: TokenId,
}

/// A request that was completed within the last 24 hours.
#[derive(Debug)]
pub struct KnownRequest {
    /// The MAC of what it asked for, with the key from which its secret is derived.
    pub body_mac: Mac,
    /// The salt from which its secret is derived too.
    pub salt: RequestSalt,
    /// The token in its response.
    pub token_id: TokenId,
    /// That token now, and the time to judge it by; `None`: it was deleted.
    pub token: Option<(Token, OffsetDateTime)>,
}

/// The outcome of a request for a new token.
#[derive(Debug)]
pub enum Stored<T> {
    /// It was created.
    New(T),
    /// The request had been completed before; with the caller as it is now.
    Known(Caller, Box<KnownRequest>),
}

impl Store {
    /// Deletes requests that are a day old: after that nothing can derive their secrets. Returns how
    /// many.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn purge_requests(&self) -> Result<u64, StoreError> {
        let Some(now) = self.time_to_delete_by() else { return Ok(0) };
        self.within(async {
            let done = sqlx::query!(
                "DELETE FROM token_requests WHERE create_time <= $1::timestamptz - interval '24 hours'",
                now
            )
            .execute(self.single()?)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

impl Transaction {
    /// Finds a completed request by its MAC.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn find_request(&mut self, request_mac: &[u8; 32]) -> Result<Option<KnownRequest>, StoreError> {
        read(self, request_mac).await
    }

    /// Stores a request, if there is one, or returns the earlier one with the same MAC.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn claim_request(
        &mut self,
        request: Option<&NewRequest>,
    ) -> Result<Option<KnownRequest>, StoreError> {
        let Some(request) = request else { return Ok(None) };
        let now = clock(self).await?;
        // The request's row first: a concurrent retry waits here until this transaction's commit, then
        // sees it.
        let done = sqlx::query!(
            "INSERT INTO token_requests (request_mac, body_mac, key_id, salt, token_id, create_time)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (request_mac) DO UPDATE SET body_mac = EXCLUDED.body_mac, key_id = EXCLUDED.key_id,
             salt = EXCLUDED.salt, token_id = EXCLUDED.token_id, create_time = EXCLUDED.create_time
         WHERE token_requests.create_time <= $6 - interval '24 hours'",
            &request.request_mac,
            &request.body_mac.tag,
            &request.body_mac.key_id.to_bytes(),
            &request.salt.0,
            rows::uuid(request.token_id),
            now
        )
        .execute(&mut *self)
        .await?;
        if done.rows_affected() == 1 {
            return Ok(None);
        }
        let known = read(self, &request.request_mac).await?;
        // Purged, or a day old, between the two statements: treated like an unavailable database, and a
        // retry helps.
        known.map(Some).ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// Overwrites what the secret of a completed request is derived from. The row stays, so that the same request
    /// sent again makes no second token.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn forget_request(&mut self, request_mac: &[u8; 32]) -> Result<(), StoreError> {
        // No key has this id, so nothing is derived.
        sqlx::query!(
            "UPDATE token_requests SET key_id = $2, salt = $3 WHERE request_mac = $1",
            request_mac,
            &[0_u8; 8],
            &[0_u8; 32]
        )
        .execute(self)
        .await?;
        Ok(())
    }

    /// Returns whether a request was completed within the last 24 hours.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn is_known_request(&mut self, request_mac: Option<&[u8; 32]>) -> Result<bool, StoreError> {
        let Some(request_mac) = request_mac else { return Ok(false) };
        let now = clock(self).await?;
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT FROM token_requests
               WHERE request_mac = $1 AND create_time > $2::timestamptz - interval '24 hours') AS "known!""#,
            request_mac,
            now
        )
        .fetch_one(self)
        .await?;
        Ok(row.known)
    }
}

async fn read(
    transaction: &mut Transaction,
    request_mac: &[u8; 32],
) -> Result<Option<KnownRequest>, StoreError> {
    let (sent, now) = (BootInstant::now(), clock(transaction).await?);
    let row = sqlx::query!(
        r#"SELECT body_mac AS "body_mac!: Lenient<Vec<u8>>", key_id AS "key_id!: Lenient<Vec<u8>>", salt, token_id
         FROM token_requests
         WHERE request_mac = $1 AND create_time > $2::timestamptz - interval '24 hours'"#,
        request_mac,
        now
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let corrupt = |_| StoreError::Corrupt { table: "token_requests", column: "salt" };
    let token = select_tokens!("WHERE id = $1", row.token_id).fetch_optional(&mut *transaction).await?;
    let clock = transaction.clock();
    Ok(Some(KnownRequest {
        body_mac: rows::mac(row.key_id, row.body_mac)
            .map_err(|_| StoreError::Corrupt { table: "token_requests", column: "body_mac" })?,
        salt: RequestSalt(row.salt.as_slice().try_into().map_err(corrupt)?),
        token_id: rows::token_id(row.token_id),
        token: token.map(|row| rows::with_read_time(row, clock, sent)).transpose()?,
    }))
}
