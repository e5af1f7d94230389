//! The row of a token and its one conversion into the domain's type. Used by every query that reads
//! tokens; a row that tokend could not have written is an error that names the column, never a guess.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use crate::domain::{
    Labels, Network, Networks, OrganizationId, Principal, RevokeReason, Scope, Scopes, Token, TokenName,
    UserId,
};
use crate::secret::{KeyId, Mac, TokenId};

/// The columns of `tokens` that make a [`Token`].
pub(super) struct TokenRow {
    pub(super) id: Uuid,
    pub(super) organization_id: String,
    pub(super) user_id: String,
    pub(super) name: String,
    pub(super) scopes: Vec<String>,
    pub(super) labels: Json<BTreeMap<String, String>>,
    pub(super) allowed_cidrs: Vec<String>,
    pub(super) create_time: OffsetDateTime,
    pub(super) created_by: String,
    pub(super) expire_time: Option<OffsetDateTime>,
    pub(super) revoke_time: Option<OffsetDateTime>,
    pub(super) revoke_reason: Option<String>,
    pub(super) rotated_from: Option<Uuid>,
    pub(super) disable_time: Option<OffsetDateTime>,
    /// From `token_uses`; `None` where that is not joined.
    pub(super) last_use_time: Option<OffsetDateTime>,
    /// The database's time when the statement began; no column of the table.
    pub(super) read_time: OffsetDateTime,
}

/// Builds the query for [`TokenRow`]s whose text ends with the given clauses.
macro_rules! select_tokens {
    ($clauses:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            TokenRow,
            r#"SELECT id, organization_id, user_id, name, scopes,
                   labels AS "labels: _",
                   allowed_cidrs::text[] AS "allowed_cidrs!", create_time, created_by,
                   expire_time, revoke_time, revoke_reason, rotated_from, disable_time,
                   (SELECT u.last_use_time FROM token_uses u WHERE u.token_id = tokens.id)
                       AS last_use_time, statement_timestamp() AS "read_time!"
               FROM tokens "#
                + $clauses
            $(, $argument)*
        )
    };
}
pub(super) use select_tokens;

/// Converts a row, and keeps the database's time of reading it.
pub(super) fn with_read_time(row: TokenRow) -> Result<(Token, OffsetDateTime), StoreError> {
    let read_time = row.read_time;
    Ok((row.try_into()?, read_time))
}

impl TryFrom<TokenRow> for Token {
    type Error = StoreError;

    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: token_id(row.id),
            organization_id: read("organization_id", OrganizationId::parse(&row.organization_id))?,
            user_id: read("user_id", UserId::parse(&row.user_id))?,
            name: read("name", TokenName::parse(&row.name))?,
            scopes: read("scopes", scopes(&row.scopes))?,
            labels: read("labels", Labels::parse(row.labels.0))?,
            allowed_cidrs: read("allowed_cidrs", networks(&row.allowed_cidrs))?,
            create_time: row.create_time,
            created_by: read("created_by", Principal::parse(&row.created_by).ok_or(()))?,
            expire_time: row.expire_time,
            last_use_time: row.last_use_time,
            revoke_time: row.revoke_time,
            revoke_reason: row
                .revoke_reason
                .map(|text| read("revoke_reason", RevokeReason::parse(&text)))
                .transpose()?,
            rotated_from: row.rotated_from.map(token_id),
            disable_time: row.disable_time,
        })
    }
}

/// Reads the columns of the fast verifier.
pub(super) fn mac(key_id: &[u8], tag: &[u8]) -> Result<Mac, StoreError> {
    Ok(Mac {
        key_id: KeyId::from_bytes(read("mac_key_id", key_id.try_into())?),
        tag: read("mac", tag.try_into())?,
    })
}

pub(super) fn token_id(id: Uuid) -> TokenId {
    TokenId::from_bytes(id.into_bytes())
}

pub(super) fn uuid(id: TokenId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

fn scopes(texts: &[String]) -> Result<Scopes, crate::domain::FieldError> {
    Scopes::new(texts.iter().map(|text| Scope::parse(text)).collect::<Result<_, _>>()?)
}

fn networks(texts: &[String]) -> Result<Networks, crate::domain::FieldError> {
    Networks::new(texts.iter().map(|text| Network::parse(text)).collect::<Result<_, _>>()?)
}

fn read<T, E>(column: &'static str, parsed: Result<T, E>) -> Result<T, StoreError> {
    parsed.map_err(|_| StoreError::Corrupt { table: "tokens", column })
}
