//! How a running tokend is asked: by one call per question, or by one call for all. Used by the
//! verifier and by its local mode.

use crate::client::Client;
use crate::error::Error;
use crate::multiplex::Multiplex;
use crate::question::{Answer, Consistency, Question};

/// Why a verifier cannot be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// There is no Tokio runtime.
    #[error("this verifier is made within a Tokio runtime")]
    Runtime,
    /// The staleness is shorter than can be kept, or too long to be a useful promise.
    #[error("the staleness must be 100 ms to 1 h")]
    Staleness,
}

/// How a running tokend is asked.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    /// One call per question.
    Unary(Client),
    /// All questions over one call.
    Multiplexed(Client, Multiplex),
}

impl Remote {
    pub(crate) async fn ask(
        &self,
        question: &Question<'_>,
        consistency: Consistency,
    ) -> Result<Answer, Error> {
        match self {
            Self::Unary(client) => client.verify(question, consistency).await,
            Self::Multiplexed(_, multiplex) => multiplex.ask(question.message(consistency)).await,
        }
    }

    pub(crate) fn client(&self) -> &Client {
        match self {
            Self::Unary(client) | Self::Multiplexed(client, _) => client,
        }
    }
}
