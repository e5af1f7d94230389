//! The baseline: a careful service without a cache. One prepared SELECT by primary key on a connection
//! from a pool, compare the MAC, judge, respond.

use std::collections::BTreeMap;

use prost::Message as _;
use prost::bytes::Bytes;
use prost_types::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::types::Json;
use sqlx::{PgPool, Row as _};
use time::OffsetDateTime;
use tokend::api::proto::{Token, TokenState, Verdict, VerifyRequest, VerifyResponse};
use tokend::secret::{KeyId, Keyring, Mac, MacMatch, Prefix, Secret};
use tonic::Status;
use uuid::Uuid;

use super::canned::Replies;
use super::variable;

/// Chosen, not tuned: several for each of two cores, so that Postgres never waits for the pool.
const CONNECTIONS: u32 = 8;

const SELECT: &str = "SELECT organization_id, user_id, name, scopes, labels, create_time, created_by, \
     expire_time, revoke_time, mac, mac_key_id, now() FROM tokens WHERE id = $1";

/// A pool and the keys.
#[derive(Debug)]
pub(crate) struct Select {
    pool: PgPool,
    keyring: Keyring,
    prefix: Prefix,
}

impl Select {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let options: PgConnectOptions = variable("DATABASE_URL")?.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            // Testing the connection each time would be a second statement per Verify.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self { pool, keyring: Keyring::parse(&variable("TOKEND_KEYS")?)?, prefix: Prefix::default() })
    }

    async fn verify(&self, request: &VerifyRequest) -> Result<VerifyResponse, sqlx::Error> {
        let Ok(secret) = Secret::parse(&request.secret, &self.prefix) else {
            return Ok(VerifyResponse { verdict: Verdict::Malformed.into(), ..Default::default() });
        };
        let id = Uuid::from_bytes(secret.id().to_bytes());
        let row = sqlx::query(SELECT).bind(id).fetch_optional(&self.pool).await?;
        let not_found = VerifyResponse { verdict: Verdict::NotFound.into(), ..Default::default() };
        match row {
            Some(row) if self.proves(&secret, &row) => judge(&row, &secret.id().to_string(), request),
            _ => Ok(not_found),
        }
    }

    fn proves(&self, secret: &Secret, row: &PgRow) -> bool {
        let (tag, key_id): (&[u8], &[u8]) = (row.get(9), row.get(10));
        let (Ok(tag), Ok(key_id)) = (tag.try_into(), key_id.try_into()) else { return false };
        self.keyring.check(secret, &Mac { key_id: KeyId::from_bytes(key_id), tag }) == MacMatch::Primary
    }
}

fn judge(row: &PgRow, id: &str, request: &VerifyRequest) -> Result<VerifyResponse, sqlx::Error> {
    let scopes: Vec<String> = row.try_get(3)?;
    let labels: Json<BTreeMap<String, String>> = row.try_get(4)?;
    let (expire_time, now): (Option<OffsetDateTime>, OffsetDateTime) = (row.try_get(7)?, row.try_get(11)?);
    let revoke_time: Option<OffsetDateTime> = row.try_get(8)?;
    let verdict = if revoke_time.is_some() {
        Verdict::Revoked
    } else if expire_time.is_some_and(|end| end <= now) {
        Verdict::Expired
    } else if request.required_scopes.iter().all(|wanted| scopes.contains(wanted)) {
        Verdict::Valid
    } else {
        Verdict::MissingScope
    };
    let token = Token {
        id: id.to_owned(),
        organization_id: row.try_get(0)?,
        user_id: row.try_get(1)?,
        name: row.try_get(2)?,
        scopes,
        labels: labels.0.into_iter().collect(),
        state: TokenState::Active.into(),
        create_time: Some(timestamp(row.try_get(5)?)),
        created_by: row.try_get(6)?,
        expire_time: expire_time.map(timestamp),
        ..Default::default()
    };
    let as_of_time = Some(timestamp(now));
    Ok(VerifyResponse { verdict: verdict.into(), token: Some(token), as_of_time, ..Default::default() })
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: time.unix_timestamp(), nanos: i32::try_from(time.nanosecond()).unwrap_or(0) }
}

impl Replies for Select {
    async fn reply(&self, request: VerifyRequest) -> Result<Bytes, Status> {
        let response = self.verify(&request).await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(response.encode_to_vec().into())
    }
}
