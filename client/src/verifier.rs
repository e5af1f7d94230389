//! The one thing that guards ask: a verifier, in one of three ways. Clones share it.

use std::sync::Arc;

use crate::client::Client;
use crate::error::Error;
use crate::local::{Local, LocalConfig, LocalStatus};
use crate::multiplex::Multiplex;
use crate::question::{Answer, Consistency, Question};

/// Tells what a secret is good for.
#[derive(Debug, Clone)]
pub struct Verifier(Arc<Mode>);

#[derive(Debug)]
enum Mode {
    Remote(Box<Remote>),
    Local(Local),
}

/// How a running tokend is asked.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    /// A call for each question.
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

impl Verifier {
    /// Asks tokend each question by a call of its own.
    #[must_use]
    pub fn unary(client: Client) -> Self {
        Self(Arc::new(Mode::Remote(Box::new(Remote::Unary(client)))))
    }

    /// Asks tokend all questions over one call: for many at once.
    #[must_use]
    pub fn multiplexed(client: Client) -> Self {
        Self(Arc::new(Mode::Remote(Box::new(Remote::multiplexed(client)))))
    }

    /// Judges by itself what it has asked before, and hears of changes; what it cannot tell it asks of tokend.
    #[must_use]
    pub fn local(client: Client, config: LocalConfig) -> Self {
        Self(Arc::new(Mode::Local(Local::start(Remote::multiplexed(client), config))))
    }

    /// Judges a secret.
    ///
    /// # Errors
    /// It cannot be found out: whoever guards something must not admit.
    pub async fn verify(&self, question: &Question<'_>) -> Result<Answer, Error> {
        match &*self.0 {
            Mode::Remote(remote) => remote.ask(question, Consistency::Bounded).await,
            Mode::Local(local) => match local.judge(question) {
                Some(answer) => Ok(answer),
                None => local.find_out(question).await,
            },
        }
    }

    /// Judges a secret without waiting; `None`: tokend has to be asked.
    #[must_use]
    pub fn verify_now(&self, question: &Question<'_>) -> Option<Answer> {
        match &*self.0 {
            Mode::Remote(_) => None,
            Mode::Local(local) => local.judge(question),
        }
    }

    /// Tells how a verifier that judges by itself is doing; `None` for the others.
    #[must_use]
    pub fn local_status(&self) -> Option<LocalStatus> {
        match &*self.0 {
            Mode::Remote(_) => None,
            Mode::Local(local) => Some(local.status()),
        }
    }
}

impl Verifier {
    pub(crate) fn client(&self) -> &Client {
        match &*self.0 {
            Mode::Remote(remote) => remote.client(),
            Mode::Local(local) => local.client(),
        }
    }
}

impl Remote {
    fn multiplexed(client: Client) -> Self {
        let multiplex = Multiplex::start(&client);
        Self::Multiplexed(client, multiplex)
    }
}
