//! The transactions that create and read tokens. Called by the actions. Each write judges its caller
//! again from the caller's own row, locked FOR SHARE, so that no credential acts after its revocation
//! has committed; and by the clock after the last lock, so that none acts after its own expiration.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;

use super::events::{self, EventKind};
use super::locks::lock_caller;
use super::policies::{self, Terms};
use super::pooling::Transaction;
use super::requests::{self, NewRequest, Stored};
use super::rows::{self, TokenRow, select_tokens};
use super::{Store, StoreError};
use crate::clock::BootInstant;
use crate::domain::{Caller, CredentialError, OrganizationId, Token, UserId};
use crate::secret::{DurableHash, Mac, TokenId};

/// A token to be stored, with both verifiers of its secret.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The record; its `create_time` is that of the terms it was created under.
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
            let sent = BootInstant::now();
            let row = select_tokens!("WHERE id = $1", rows::uuid(id)).fetch_optional(self.single()?).await?;
            row.map(|row| rows::with_read_time(row, &self.clock, sent)).transpose()
        })
        .await
    }

    /// Stores the token that `prepare` makes for this user, with the caller judged again in this
    /// transaction, under the organization's terms; or returns the earlier result of the same request.
    /// The inner result is the refusal of `prepare`, or the caller's.
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

/// Inserts a token with its verifiers; its predecessor is already marked as superseded.
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
