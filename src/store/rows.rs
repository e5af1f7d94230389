//! The row of a token and its conversion to the domain type: the one place that lists its columns. Used
//! by every query that reads tokens; a row that tokend could not have written gives an error that names
//! the column, never a guess, and affects no other row.

use std::collections::BTreeMap;

use sqlx::postgres::PgTypeInfo;
use sqlx::postgres::types::Oid;
use sqlx::types::Json;
use sqlx::{Postgres, Type};
use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::clock::{Clock, ClockReading};
use super::columns::{Lenient, Time, unreadable_token};
use super::grants::GrantColumn;
use super::refusals::RefusalColumn;
use crate::clock::BootInstant;
use crate::domain::token::LastRefusal;
use crate::domain::{
    Grant, Labels, Network, Networks, OrganizationId, OwnerKind, PlanName, Principal, RevokeReason, Scope,
    Scopes, Token, TokenName, UserId,
};
use crate::secret::{KeyId, Mac, TokenId};

/// What makes a [`Token`], in the order in which [`token_query`] selects it.
#[derive(Debug, sqlx::Decode)]
pub(super) struct TokenRow {
    pub(super) id: Uuid,
    organization_id: Lenient<String>,
    user_id: Lenient<String>,
    name: Lenient<String>,
    scopes: Lenient<Vec<String>>,
    labels: Lenient<Json<BTreeMap<String, String>>>,
    allowed_cidrs: Lenient<Vec<String>>,
    pub(super) create_time: Lenient<Time>,
    created_by: Lenient<String>,
    pub(super) expire_time: Lenient<Option<Time>>,
    revoke_time: Lenient<Option<Time>>,
    revoke_reason: Lenient<Option<String>>,
    rotated_from: Lenient<Option<Uuid>>,
    disable_time: Lenient<Option<Time>>,
    superseded_by: Lenient<Option<Uuid>>,
    grant: Lenient<Option<Json<GrantColumn>>>,
    user_disable_time: Lenient<Option<Time>>,
    plan: Lenient<Option<String>>,
    /// `None` if it is the token's own id: the first rotation writes it to the first token too.
    family_id: Lenient<Option<Uuid>>,
    owner_kind: Lenient<String>,
    /// From `token_uses`; `None` if that is not joined.
    last_use_time: Lenient<Option<Time>>,
    /// From `token_refusals`; `None` if that is not joined.
    last_refusal: Lenient<Option<Json<RefusalColumn>>>,
    /// The database's time when the statement began; not a column of the table. `None` if not
    /// requested.
    read_time: Option<Time>,
}

impl Type<Postgres> for TokenRow {
    fn type_info() -> PgTypeInfo {
        // The type of rows without a name, the same in every database.
        PgTypeInfo::with_oid(Oid(2249))
    }
}

impl TokenRow {
    /// Returns whether it has a revocation time, even an unreadable one.
    pub(super) fn is_revoked(&self) -> bool {
        !matches!(self.revoke_time.0, Some(None))
    }
}

/// Builds a query whose rows have a [`TokenRow`] beside what else it selects: one value, NULL where
/// there is no token. The text before it ends with what else is selected, the text after it begins with
/// its name. The table of tokens is `t`; `$elsewhere` are the last three fields of the row, which are not
/// columns of it.
macro_rules! token_query {
    ($query:ident $($row:ident)?, $before:literal, $elsewhere:literal, [$($after:literal)*]
        $(, $argument:expr)* $(,)?) => {
        sqlx::$query!(
            $($row,)?
            $before
                + " CASE WHEN t.id IS NOT NULL THEN ROW(t.id, t.organization_id, t.user_id, t.name, t.scopes,
                   t.labels, t.allowed_cidrs::text[], t.create_time, t.created_by, t.expire_time, t.revoke_time,
                   t.revoke_reason, t.rotated_from, t.disable_time, t.superseded_by, t.grant,
                   t.user_disable_time, t.plan, nullif(t.family_id, t.id), t.owner_kind, "
                + $elsewhere + ") END " $(+ $after)*
            $(, $argument)*
        )
    };
}
pub(super) use token_query;

/// Builds the query for the [`TokenRow`]s that the clauses select, with their last use and the time of
/// reading.
macro_rules! select_tokens {
    ($clauses:literal $(, $argument:expr)* $(,)?) => {
        $crate::store::rows::token_query!(
            query_scalar,
            "SELECT",
            "(SELECT u.last_use_time FROM token_uses u WHERE u.token_id = t.id),
             (SELECT r.refusal FROM token_refusals r WHERE r.token_id = t.id), statement_timestamp()",
            [r#"AS "token!: TokenRow" FROM tokens t "# $clauses]
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
    Ok((row.try_into()?, clock.accepted(ClockReading { sent, time })))
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
        superseded_by: row.superseded_by.read("superseded_by")?.map(token_id),
        grant: parsed("grant", row.grant, |column| column.map(|json| Grant::try_from(json.0)).transpose())?,
        user_disable_time: row.user_disable_time.optional_moment("user_disable_time")?,
        plan: parsed("plan", row.plan, |text| text.map(|text| PlanName::parse(&text)).transpose())?,
        family_id: row.family_id.read("family_id")?.map(token_id),
        owner_kind: parsed("owner_kind", row.owner_kind, |text| OwnerKind::from_word(&text).ok_or(()))?,
        last_refusal: parsed("refusal", row.last_refusal, |column| {
            column.map(|json| LastRefusal::try_from(json.0).map(Box::new)).transpose()
        })?,
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

pub(super) fn scopes(texts: &[String]) -> Result<Scopes, crate::domain::FieldError> {
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
