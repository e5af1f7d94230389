//! Reads tokens, and the steps of a transaction that create and change one. Called by the actions.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;

use super::grants::GrantColumn;
use super::rows::{self, TokenRow, select_tokens};
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::clock::BootInstant;
use crate::domain::{PlanName, Token};
use crate::secret::{DurableHash, Mac, TokenId};

/// A token to be stored, with both verifiers of its secret.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The record; its `create_time` is that of the context it was created under.
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
}

impl Transaction {
    /// Inserts a token with its verifiers; its predecessor is already marked as superseded.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn insert_token(&mut self, new: &NewToken) -> Result<(), StoreError> {
        let token = &new.token;
        let scopes: Vec<String> = token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        let labels: BTreeMap<&str, &str> = token.labels.iter().collect();
        let allowed_cidrs: Vec<String> = token.allowed_cidrs.iter().map(ToString::to_string).collect();
        sqlx::query!(
            r#"INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, allowed_cidrs, create_time,
             created_by, expire_time, rotated_from, durable_hash, mac, mac_key_id, "grant", owner_kind, plan, family_id,
             generation)
         SELECT $1, $2, $3, $4, $5, $6, $7::text[]::cidr[], $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, old.family_id,
             coalesce(old.generation + 1, 0)
         FROM (SELECT) AS always LEFT JOIN tokens old ON old.id = $11"#,
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
            new.durable_hash.as_bytes(),
            &new.mac.tag,
            &new.mac.key_id.to_bytes(),
            token.grant.as_ref().map(|grant| Json(GrantColumn::from(grant))) as _,
            token.owner_kind.word(),
            token.plan.as_ref().map(PlanName::as_str)
        )
        .execute(self)
        .await?;
        Ok(())
    }

    /// Reads a token again, after a change in this transaction.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn reread_token(&mut self, id: TokenId) -> Result<Token, StoreError> {
        select_tokens!("WHERE id = $1", rows::uuid(id)).fetch_one(self).await?.try_into()
    }

    /// Writes the fields of a locked token that `UpdateToken` changes.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn update_token(&mut self, token: &Token) -> Result<(), StoreError> {
        let scopes: Vec<String> = token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        let labels: BTreeMap<&str, &str> = token.labels.iter().collect();
        let allowed_cidrs: Vec<String> = token.allowed_cidrs.iter().map(ToString::to_string).collect();
        sqlx::query!(
            r#"UPDATE tokens SET name = $2, labels = $3, scopes = $4, expire_time = $5,
                     allowed_cidrs = $6::text[]::cidr[], "grant" = $7, plan = $8
                 WHERE id = $1"#,
            rows::uuid(token.id),
            token.name.as_str(),
            Json(labels) as _,
            &scopes,
            token.expire_time,
            &allowed_cidrs,
            token.grant.as_ref().map(|grant| Json(GrantColumn::from(grant))) as _,
            token.plan.as_ref().map(PlanName::as_str)
        )
        .execute(self)
        .await?;
        Ok(())
    }

    /// Disables a locked token from this time on, or enables it.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn set_disabled(
        &mut self,
        id: TokenId,
        disable_time: Option<OffsetDateTime>,
    ) -> Result<(), StoreError> {
        sqlx::query!("UPDATE tokens SET disable_time = $2 WHERE id = $1", rows::uuid(id), disable_time)
            .execute(self)
            .await?;
        Ok(())
    }
}
