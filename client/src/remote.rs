//! How a running tokend is asked: by one call per request, or by one call for all. Used by the
//! verifier and by its local mode.

use tokio::runtime::Handle;

use crate::client::Client;
use crate::error::Error;
use crate::multiplex::Multiplex;
use crate::verification::{Consistency, Verification, VerifyRequest};

/// Why a verifier cannot be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// There is no Tokio runtime.
    #[error("create this verifier within a Tokio runtime")]
    Runtime,
    /// The staleness is shorter than can be kept, or too long to be a useful promise.
    #[error("the staleness must be 100 ms to 1 h")]
    Staleness,
}

/// How a running tokend is asked.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    client: Client,
    /// The one call for all requests; `None`: each request has its own.
    multiplex: Option<Multiplex>,
}

impl Remote {
    pub(crate) fn unary(client: Client) -> Self {
        Self { client, multiplex: None }
    }

    pub(crate) fn multiplexed(client: Client) -> Result<Self, VerifierError> {
        // Its task is spawned there.
        Handle::try_current().map_err(|_| VerifierError::Runtime)?;
        let multiplex = Some(Multiplex::start(&client));
        Ok(Self { client, multiplex })
    }

    pub(crate) async fn verify(
        &self,
        request: &VerifyRequest<'_>,
        consistency: Consistency,
    ) -> Result<Verification, Error> {
        match &self.multiplex {
            None => self.client.verify(request, consistency).await,
            Some(multiplex) => multiplex.verify(request.message(consistency)).await,
        }
    }

    #[cfg(any(feature = "guard", feature = "local"))]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}
