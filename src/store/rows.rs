//! The row of a token and its conversion to the domain type. Used by every query that reads tokens; a
//! row that tokend could not have written gives an error that names the column, never a guess, and
//! affects no other row.

use std::collections::BTreeMap;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::clock::{Clock, Reading};
use super::columns::{Lenient, Time, unreadable_token};
use crate::clock::BootInstant;
use crate::domain::{
    Labels, Network, Networks, OrganizationId, Principal, RevokeReason, Scope, Scopes, Token, TokenName,
    UserId,
};
use crate::secret::{KeyId, Mac, TokenId};

/// The columns of `tokens` that make a [`Token`].
pub(super) struct TokenRow {
    pub(super) id: Uuid,
    pub(super) organization_id: Lenient<String>,
    pub(super) user_id: Lenient<String>,
    pub(super) name: Lenient<String>,
    pub(super) scopes: Lenient<Vec<String>>,
    pub(super) labels: Lenient<Json<BTreeMap<String, String>>>,
    pub(super) allowed_cidrs: Lenient<Vec<String>>,
    pub(super) create_time: Lenient<Time>,
    pub(super) created_by: Lenient<String>,
    pub(super) expire_time: Lenient<Option<Time>>,
    pub(super) revoke_time: Lenient<Option<Time>>,
    pub(super) revoke_reason: Lenient<Option<String>>,
    pub(super) rotated_from: Lenient<Option<Uuid>>,
    pub(super) disable_time: Lenient<Option<Time>>,
    /// From `token_uses`; `None` if that is not joined.
    pub(super) last_use_time: Lenient<Option<Time>>,
    /// The database's time when the statement began; not a column of the table. `None` if not
    /// requested.
    pub(super) read_time: Option<Time>,
}

impl TokenRow {
    /// Returns whether it has a revocation time, even an unreadable one.
    pub(super) fn is_revoked(&self) -> bool {
        !matches!(self.revoke_time.0, Some(None))
    }
}

/// Builds the query for [`TokenRow`]s whose text ends with the given clauses.
macro_rules! select_tokens {
    ($clauses:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            TokenRow,
            r#"SELECT id, organization_id AS "organization_id!: _",
                   user_id AS "user_id!: _", name AS "name!: _",
                   scopes AS "scopes!: _",
                   labels AS "labels!: _",
                   allowed_cidrs::text[] AS "allowed_cidrs!: _",
                   create_time AS "create_time!: _",
                   created_by AS "created_by!: _",
                   expire_time AS "expire_time!: _",
                   revoke_time AS "revoke_time!: _",
                   revoke_reason AS "revoke_reason!: _",
                   rotated_from AS "rotated_from!: _",
                   disable_time AS "disable_time!: _",
                   (SELECT u.last_use_time FROM token_uses u WHERE u.token_id = tokens.id)
                       AS "last_use_time!: _",
                   statement_timestamp() AS "read_time: _"
               FROM tokens "#
                + $clauses
            $(, $argument)*
        )
    };
}
pub(super) use select_tokens;

/// Converts a row, and returns it with the time of reading it, corrected by the accepted clock. `sent`:
/// when the read was sent.
pub(super) fn with_read_time(
    row: TokenRow,
    clock: &Clock,
    sent: BootInstant,
) -> Result<(Token, OffsetDateTime), StoreError> {
    let time = row.read_time.ok_or(StoreError::Clock)?.clock()?;
    Ok((row.try_into()?, clock.accepted(Reading { sent, time })))
}

impl TryFrom<TokenRow> for Token {
    type Error = StoreError;

    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        let id = row.id;
        token(row).map_err(|column| unreadable_token(id, column))
    }
}

/// Converts a row; the error is the name of the column that cannot be read.
pub(super) fn token(row: TokenRow) -> Result<Token, &'static str> {
    Ok(Token {
        id: token_id(row.id),
        organization_id: parsed("organization_id", row.organization_id, |text| OrganizationId::parse(&text))?,
        user_id: parsed("user_id", row.user_id, |text| UserId::parse(&text))?,
        name: parsed("name", row.name, |text| TokenName::parse(&text))?,
        scopes: parsed("scopes", row.scopes, |texts| scopes(&texts))?,
        labels: parsed("labels", row.labels, |labels| Labels::parse(labels.0))?,
        allowed_cidrs: parsed("allowed_cidrs", row.allowed_cidrs, |texts| networks(&texts))?,
        create_time: row.create_time.moment("create_time")?,
        created_by: parsed("created_by", row.created_by, |text| Principal::parse(&text).ok_or(()))?,
        expire_time: row.expire_time.optional_moment("expire_time")?,
        last_use_time: row.last_use_time.optional_moment("last_use_time")?,
        revoke_time: row.revoke_time.optional_moment("revoke_time")?,
        revoke_reason: parsed("revoke_reason", row.revoke_reason, |text| {
            text.map(|text| RevokeReason::parse(&text)).transpose()
        })?,
        rotated_from: row.rotated_from.read("rotated_from")?.map(token_id),
        disable_time: row.disable_time.optional_moment("disable_time")?,
    })
}

/// Reads the columns of the fast verifier.
pub(super) fn mac(key_id: Lenient<Vec<u8>>, tag: Lenient<Vec<u8>>) -> Result<Mac, &'static str> {
    Ok(Mac {
        key_id: KeyId::from_bytes(parsed("mac_key_id", key_id, TryInto::try_into)?),
        tag: parsed("mac", tag, TryInto::try_into)?,
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

fn parsed<V, T, E>(
    column: &'static str,
    value: Lenient<V>,
    parse: impl FnOnce(V) -> Result<T, E>,
) -> Result<T, &'static str> {
    parse(value.read(column)?).map_err(|_| column)
}
