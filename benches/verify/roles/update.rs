//! The simple way to limit: one UPDATE of the token's row in a table of counters on every Verify, by the
//! rule that tokend uses. Nothing else of a Verify is done, so this is the most that it can answer.

use prost::bytes::Bytes;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokend::api::proto::VerifyRequest;
use tokend::secret::{Prefix, Secret};
use tonic::Status;
use uuid::Uuid;

use super::canned::Replies;
use super::{REPLY, variable};

/// Chosen, not tuned: enough that many commits share one write of the log.
const CONNECTIONS: u32 = 32;

/// The name of the table, and its statement: a million requests a second, with a burst of a second.
pub(crate) const TABLE: &str = "bench_counters";
const UPDATE: &str = "UPDATE bench_counters SET full_time = greatest(full_time, now()) + interval '1 us' \
     WHERE token_id = $1 AND greatest(full_time, now()) + interval '1 us' - now() <= interval '1 s' \
     RETURNING full_time - now()";

/// A pool, and the response.
#[derive(Debug)]
pub(crate) struct Update {
    pool: PgPool,
    reply: Bytes,
}

impl Update {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let options: PgConnectOptions = variable("DATABASE_URL")?.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            // Testing the connection each time would be a second statement per Verify.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self { pool, reply: hex::decode(variable(REPLY)?)?.into() })
    }
}

impl Replies for Update {
    async fn reply(&self, request: VerifyRequest) -> Result<Bytes, Status> {
        let secret = Secret::parse(&request.secret, &Prefix::default())
            .map_err(|error| Status::internal(error.to_string()))?;
        let id = Uuid::from_bytes(secret.id().to_bytes());
        let row = sqlx::query(UPDATE).bind(id).fetch_optional(&self.pool).await;
        match row.map_err(|error| Status::unavailable(error.to_string()))? {
            Some(_) => Ok(self.reply.clone()),
            None => Err(Status::resource_exhausted("the limit is used up, or the token has no counter")),
        }
    }
}
