//! A server that only has Argon2id hashes: one computation per Verify, as many at once as there are
//! cores.

use std::sync::Arc;
use std::thread::available_parallelism;

use prost::bytes::Bytes;
use tokend::api::proto::VerifyRequest;
use tokend::secret::{DurableCost, DurableHash, Prefix, Secret};
use tokio::sync::Semaphore;
use tonic::Status;

use super::canned::Replies;
use super::{DURABLE_HASH, REPLY, variable};

/// Checks one token's hash.
#[derive(Debug)]
pub(crate) struct Argon2 {
    hash: DurableHash,
    reply: Bytes,
    permits: Arc<Semaphore>,
}

impl Argon2 {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        Ok(Self {
            hash: DurableHash::from_bytes(hex::decode(variable(DURABLE_HASH)?)?),
            reply: hex::decode(variable(REPLY)?)?.into(),
            permits: Arc::new(Semaphore::new(available_parallelism()?.get())),
        })
    }
}

impl Replies for Argon2 {
    async fn reply(&self, request: VerifyRequest) -> Result<Bytes, Status> {
        let internal = |error: String| Status::internal(error);
        let secret =
            Secret::parse(&request.secret, &Prefix::default()).map_err(|e| internal(e.to_string()))?;
        let _permit = self.permits.acquire().await.map_err(|e| internal(e.to_string()))?;
        let hash = self.hash.clone();
        let checked = tokio::task::spawn_blocking(move || hash.verify(&secret, DurableCost::default())).await;
        match checked {
            Ok(Ok(true)) => Ok(self.reply.clone()),
            other => Err(internal(format!("{other:?}"))),
        }
    }
}
