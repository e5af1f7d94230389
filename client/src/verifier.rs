//! The verifier that guards ask, with three modes. Clones share it.

use std::sync::Arc;

use crate::client::Client;
use crate::error::Error;
#[cfg(feature = "local")]
use crate::local::{Local, LocalConfig, LocalStatus};
use crate::remote::Remote;
pub use crate::remote::VerifierError;
use crate::verification::{Consistency, Verification, VerifyRequest};

/// Judges secrets.
#[derive(Debug, Clone)]
pub struct Verifier(Arc<Mode>);

#[derive(Debug)]
enum Mode {
    Remote(Box<Remote>),
    #[cfg(feature = "local")]
    Local(Local),
}

impl Verifier {
    /// Creates a verifier that asks tokend with one call per request.
    #[must_use]
    pub fn unary(client: Client) -> Self {
        Self(Arc::new(Mode::Remote(Box::new(Remote::unary(client)))))
    }

    /// Creates a verifier that asks tokend all requests over one call, for many at once.
    ///
    /// # Errors
    /// [`VerifierError::Runtime`].
    pub fn multiplexed(client: Client) -> Result<Self, VerifierError> {
        Ok(Self(Arc::new(Mode::Remote(Box::new(Remote::multiplexed(client)?)))))
    }

    /// Creates a verifier that judges locally what it has asked before, follows changes, and asks
    /// tokend everything else. Requires the feature `local`.
    ///
    /// # Errors
    /// [`VerifierError`].
    #[cfg(feature = "local")]
    pub fn local(client: Client, config: LocalConfig) -> Result<Self, VerifierError> {
        config.check()?;
        Ok(Self(Arc::new(Mode::Local(Local::start(Remote::multiplexed(client)?, config)))))
    }

    /// Judges a secret.
    ///
    /// # Errors
    /// The verdict is not known: the caller must not admit the client.
    pub async fn verify(&self, request: &VerifyRequest<'_>) -> Result<Verification, Error> {
        match &*self.0 {
            Mode::Remote(remote) => remote.verify(request, Consistency::Bounded).await,
            #[cfg(feature = "local")]
            Mode::Local(local) => match local.judge(request) {
                Some(answer) => Ok(answer),
                None => local.verify_remotely(request).await,
            },
        }
    }

    /// Judges a secret without waiting; `None`: tokend has to be asked.
    #[cfg_attr(
        not(feature = "local"),
        expect(unused_variables, reason = "that is what judges without waiting")
    )]
    #[must_use]
    pub fn try_verify(&self, request: &VerifyRequest<'_>) -> Option<Verification> {
        match &*self.0 {
            Mode::Remote(_) => None,
            #[cfg(feature = "local")]
            Mode::Local(local) => local.judge(request),
        }
    }

    /// Returns the status of a local verifier; `None` for the other modes. Requires the feature `local`.
    #[cfg(feature = "local")]
    #[must_use]
    pub fn local_status(&self) -> Option<LocalStatus> {
        match &*self.0 {
            Mode::Remote(_) => None,
            Mode::Local(local) => Some(local.status()),
        }
    }
}

#[cfg(feature = "guard")]
impl Verifier {
    pub(crate) fn client(&self) -> &Client {
        match &*self.0 {
            Mode::Remote(remote) => remote.client(),
            #[cfg(feature = "local")]
            Mode::Local(local) => local.client(),
        }
    }
}

#[cfg(all(test, feature = "local"))]
mod tests {
    use super::*;
    use crate::connection::Connection;

    #[test]
    fn a_verifier_with_background_tasks_needs_a_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async { Connection::to("http://127.0.0.1:1").open().unwrap() });
        assert_eq!(Verifier::multiplexed(client.clone()).unwrap_err(), VerifierError::Runtime);
        let refused = Verifier::local(client.clone(), LocalConfig::default());
        assert_eq!(refused.unwrap_err(), VerifierError::Runtime);
        runtime.block_on(async { Verifier::multiplexed(client).unwrap() });
    }
}
