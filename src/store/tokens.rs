//! The transactions that make and change tokens. Called by the actions. Each judges its caller anew from
//! the caller's own row, locked FOR SHARE, so that no credential acts after its revocation has committed; and by the
//! clock behind the last lock, so that none acts after its own end.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;

use super::clock::Reading;
use super::columns::Time;
use super::events::{self, EventKind};
use super::policies::{self, Terms};
use super::pooling::Transaction;
use super::requests::{self, NewRequest, Stored};
use super::rows::{self, TokenRow, select_tokens};
use super::{Store, StoreError};
use crate::ambient::Moment;
use crate::domain::{Caller, CredentialError, OrganizationId, Principal, Token, UserId};
use crate::secret::{DurableHash, Mac, TokenId};

/// A token to be stored, with both verifiers of its secret.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The record; its `create_time` is that of the terms that it was made under.
    pub token: Token,
    /// The fast verifier.
    pub mac: Mac,
    /// The durable verifier.
    pub durable_hash: DurableHash,
}

impl Store {
    /// Reads a token, and the time to judge it by; `None`: there is no such token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn read_token(&self, id: TokenId) -> Result<Option<(Token, OffsetDateTime)>, StoreError> {
        self.within(async {
            let sent = Moment::now();
            let row = select_tokens!("WHERE id = $1", rows::uuid(id)).fetch_optional(self.single()?).await?;
            row.map(|row| rows::with_read_time(row, &self.clock, sent)).transpose()
        })
        .await
    }

    /// Stores the token that `prepare` makes for this user and the caller, as it stands in this transaction, under
    /// the organization's terms; or returns what answered the same request before. The inner result is
    /// `prepare`'s own refusal, or the caller's.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store; nothing is stored then, unless the commit's
    /// outcome is unknown.
    pub async fn create_token<E: From<CredentialError>>(
        &self,
        caller: &Caller,
        owner: (&OrganizationId, &UserId),
        request: Option<&NewRequest>,
        prepare: impl Fn(&Caller, &Terms) -> Result<NewToken, E>,
    ) -> Result<Result<Stored<Token>, E>, StoreError> {
        self.retrying(async || {
            let mut transaction = self.begin().await?;
            let policy = policies::hold(&mut transaction, owner.0).await?;
            policies::lock_owner(&mut transaction, &policy, owner.0, owner.1).await?;
            let caller = lock_caller(&mut transaction, caller, None).await?;
            let known = requests::claim(&mut transaction, request).await?;
            let (caller, now) = match caller.judge(&mut transaction).await? {
                Ok(judged) => judged,
                Err(refusal) => return Ok(Err(refusal.into())),
            };
            if let Some(known) = known {
                transaction.commit_unchanged().await?;
                return Ok(Ok(Stored::Known(caller, Box::new(known))));
            }
            let terms = policies::terms(&mut transaction, (policy, now), owner, None).await?;
            let new = match prepare(&caller, &terms) {
                Ok(new) => new,
                Err(refusal) => return Ok(Err(refusal)),
            };
            insert(&mut transaction, &new).await?;
            events::append(&mut transaction, EventKind::Created, None, &new.token, &caller.principal, now)
                .await?;
            transaction.commit().await?;
            Ok(Ok(Stored::New(new.token)))
        })
        .await
    }
}

/// A caller with its own row, which stays as it is until the transaction ends.
pub(super) struct LockedCaller<'a> {
    caller: &'a Caller,
    /// `None`: it has none, or it is no token.
    token: Option<Token>,
}

/// Locks the caller's row. When the caller's own token is the `target` that is to be changed, its row is locked for
/// that at once: of two callers that first only held on to it, neither could go on.
pub(super) async fn lock_caller<'a>(
    transaction: &mut Transaction,
    caller: &'a Caller,
    target: Option<TokenId>,
) -> Result<LockedCaller<'a>, StoreError> {
    let token = match caller.principal {
        Principal::Token(id) if target == Some(id) => lock_token(transaction, id).await?,
        Principal::Token(id) => {
            let row = select_tokens!("WHERE id = $1 FOR SHARE", rows::uuid(id)).fetch_optional(transaction);
            row.await?.map(Token::try_from).transpose()?
        }
        _ => None,
    };
    Ok(LockedCaller { caller, token })
}

impl LockedCaller<'_> {
    /// Judges the caller by the database's clock, and returns what that says. To be called behind the last lock:
    /// while one was waited for, the credential may have ended.
    pub(super) async fn judge(
        &self,
        transaction: &mut Transaction,
    ) -> Result<Result<(Caller, OffsetDateTime), CredentialError>, StoreError> {
        let now = clock(transaction).await?;
        let Principal::Token(_) = self.caller.principal else { return Ok(Ok((self.caller.clone(), now))) };
        let Some(token) = &self.token else { return Ok(Err(CredentialError::Invalid)) };
        Ok(Caller::from_token(token, self.caller.peer(), now).map(|caller| (caller, now)))
    }
}

/// Reads the database's clock, as far as it is believed. `now()` would be the time before everything that the transaction
/// has waited for.
pub(super) async fn clock(transaction: &mut Transaction) -> Result<OffsetDateTime, StoreError> {
    let sent = Moment::now();
    let row =
        sqlx::query!(r#"SELECT clock_timestamp() AS "now!: Time""#).fetch_one(&mut *transaction).await?;
    Ok(transaction.clock().believed(Reading { sent, time: row.now.clock()? }))
}

/// Reads a token that is to be changed, and keeps others from changing it until the transaction ends.
pub(super) async fn lock_token(
    transaction: &mut Transaction,
    id: TokenId,
) -> Result<Option<Token>, StoreError> {
    select_tokens!("WHERE id = $1 FOR UPDATE", rows::uuid(id))
        .fetch_optional(transaction)
        .await?
        .map(Token::try_from)
        .transpose()
}

/// Inserts a token with its verifiers; what it was rotated from is marked as superseded already.
pub(super) async fn insert(transaction: &mut Transaction, new: &NewToken) -> Result<(), StoreError> {
    let token = &new.token;
    let scopes: Vec<String> = token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
    let labels: BTreeMap<&str, &str> = token.labels.iter().collect();
    let allowed_cidrs: Vec<String> = token.allowed_cidrs.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, allowed_cidrs, create_time,
             created_by, expire_time, rotated_from, durable_hash, mac, mac_key_id, family_id, generation)
         SELECT $1, $2, $3, $4, $5, $6, $7::text[]::cidr[], $8, $9, $10, $11, $12, $13, $14, old.family_id,
             coalesce(old.generation + 1, 0)
         FROM (SELECT) AS always LEFT JOIN tokens old ON old.id = $11",
        rows::uuid(token.id),
        token.organization_id.as_str(),
        token.user_id.as_str(),
        token.name.as_str(),
        &scopes,
        Json(labels) as _,
        &allowed_cidrs,
        token.create_time,
        token.created_by.to_string(),
        token.expire_time,
        token.rotated_from.map(rows::uuid),
        new.durable_hash.as_str(),
        &new.mac.tag,
        &new.mac.key_id.to_bytes()
    )
    .execute(transaction)
    .await?;
    Ok(())
}
