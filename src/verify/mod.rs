//! The verification engine: from the text of a secret to what is known of its token. Called by Verify and
//! by every call that authenticates its caller; both go the same way. Knows no gRPC and no SQL. What it
//! cannot find out is an error, never a verdict.

use std::sync::Arc;

use time::OffsetDateTime;

mod fallback;

use crate::domain::{Caller, CredentialError, Reach, Record, Scope, Scopes, Token, Verdict, judge};
use crate::hashing::{HashPool, Overloaded};
use crate::jobs::mac_refresh::MacRefresh;
use crate::secret::{DurableCost, DurableError, Keyring, MacMatch, Prefix, Secret};
use crate::store::{MacChange, Store, StoreError};

use fallback::Fallback;
pub use fallback::Share;

/// What Verify answers.
#[derive(Debug)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The token and the moment by which it was judged; only when the secret matched and is in reach.
    pub token: Option<(Arc<Token>, OffsetDateTime)>,
    /// The required scopes that the token lacks.
    pub missing_scopes: Vec<Scope>,
    /// The database's time that the answer is at least as new as; `None` when the text alone decided.
    pub as_of: Option<OffsetDateTime>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The database could not tell.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The durable verifier was needed and had no place.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The durable verifier that the database holds is not one that this server may compute.
    #[error("the token's durable hash cannot be checked")]
    DurableHash(#[from] DurableError),
}

/// Why a caller was not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The credential is not good.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// Whether it is good could not be found out.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// Knows secrets by their records.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    keyring: Arc<Keyring>,
    prefix: Prefix,
    fallback: Fallback,
    refresh: MacRefresh,
}

/// A record whose secret was presented, as of a moment.
struct Recognised {
    record: Option<Record>,
    as_of: OffsetDateTime,
}

impl Engine {
    /// Puts the engine together. `refresh` takes MACs that were made with an older key.
    #[must_use]
    pub fn new(
        store: Store,
        keyring: Arc<Keyring>,
        prefix: Prefix,
        hashing: HashPool,
        limit: DurableCost,
        refresh: MacRefresh,
    ) -> Self {
        let fallback = Fallback::new(store.clone(), Arc::clone(&keyring), hashing, limit);
        Self { store, keyring, prefix, fallback, refresh }
    }

    /// Judges a secret for a caller that reaches `reach`.
    ///
    /// # Errors
    /// [`Unknown`] when the database cannot tell.
    pub async fn verify(
        &self,
        text: &str,
        required: &Scopes,
        reach: &Reach,
        share: Share,
    ) -> Result<Answer, Unknown> {
        let bare = |verdict, as_of| Answer { verdict, token: None, missing_scopes: Vec::new(), as_of };
        let Ok(secret) = Secret::parse(text, &self.prefix) else {
            return Ok(bare(Verdict::Malformed, None));
        };
        let Recognised { record, as_of } = self.recognise(secret, reach, share).await?;
        let Some(Record { token, .. }) = record else {
            return Ok(bare(Verdict::NotFound, Some(as_of)));
        };
        let judgement = judge(&token, as_of, reach, required);
        Ok(Answer {
            verdict: judgement.verdict,
            token: Some((Arc::new(token), as_of)),
            missing_scopes: judgement.missing_scopes,
            as_of: Some(as_of),
        })
    }

    /// Makes a caller of the secret that it presents as its credential.
    ///
    /// # Errors
    /// [`AuthenticateError`]: the credential is not good, or that cannot be found out.
    pub async fn authenticate(&self, text: &str, share: Share) -> Result<Caller, AuthenticateError> {
        let secret = Secret::parse(text, &self.prefix).map_err(|_| CredentialError::Malformed)?;
        let Recognised { record, as_of } = self.recognise(secret, &Reach::Any, share).await?;
        let record = record.ok_or(CredentialError::Invalid)?;
        Ok(Caller::from_token(&record.token, as_of)?)
    }

    /// Finds the record that the secret proves, within reach; `None` alike for an unknown id, a wrong
    /// secret and a token out of reach.
    async fn recognise(&self, secret: Secret, reach: &Reach, share: Share) -> Result<Recognised, Unknown> {
        let mut loaded = self.store.load_records(&[secret.id()]).await?;
        let as_of = loaded.as_of;
        let unrecognised = Recognised { record: None, as_of };
        let Some(record) = loaded.records.pop() else { return Ok(unrecognised) };
        // Before the fallback: a caller buys no Argon2id on tokens that it could not be told about.
        if !reach.includes(&record.token.organization_id) {
            return Ok(unrecognised);
        }
        let proven = match self.keyring.check(&secret, &record.mac) {
            MacMatch::Primary => true,
            MacMatch::Older => {
                let new = self.keyring.mac(&secret);
                self.refresh.suggest(MacChange { id: secret.id(), old: record.mac, new });
                true
            }
            MacMatch::Mismatch => false,
            MacMatch::UnknownKey => self.fallback.prove(secret, share).await?,
        };
        Ok(if proven { Recognised { record: Some(record), as_of } } else { unrecognised })
    }
}
