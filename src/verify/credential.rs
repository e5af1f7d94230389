//! A caller's own credential: proven once, judged again at each use. Called by the gRPC API, for every
//! call and for every round of a stream.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use super::cache_generation::CacheGeneration;
use super::engine::Engine;
use super::read_point::{Looked, ReadPoint};
use super::read_queue::Lane;
use super::{AuthenticateError, ClientKey, CredentialCache, ProveError, Unknown};
use crate::clock;
use crate::domain::{Caller, CredentialError, Record};
use crate::secret::{Secret, TokenId};
use crate::store::StoreError;

/// A proven credential, and its caller.
#[derive(Debug, Clone)]
pub struct Credential {
    caller: Caller,
    proof: Proof,
}

/// What proves that the credential is the caller's.
#[derive(Debug, Clone)]
enum Proof {
    /// Its secret belongs to this token.
    Token { id: TokenId, record: Record, seen: CacheGeneration },
    /// Its client certificate, valid until this time, inclusive.
    Certificate { not_after: OffsetDateTime },
}

impl Credential {
    /// Creates the credential of a caller with a genuine client certificate.
    #[must_use]
    pub fn of_certificate(caller: Caller, not_after: OffsetDateTime) -> Self {
        Self { caller, proof: Proof::Certificate { not_after } }
    }

    /// Returns the caller, as it was when the credential was last judged.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Engine {
    /// Returns the id of the token that a secret proves, in any state; `None` if it proves none.
    ///
    /// # Errors
    /// [`ProveError`]: the text is no secret, or the database cannot tell what it proves.
    pub async fn prove(&self, text: &str, share: ClientKey) -> Result<Option<TokenId>, ProveError> {
        let secret = Secret::parse(text, &self.prefix)?;
        let id = secret.id();
        let looked = self.find(id, Lane::Secret).await?;
        let Some(record) = &looked.record else { return Ok(None) };
        let proven = match self.compare(&secret, record) {
            Some(proven) => proven,
            None => self.prove_durably(secret, share).await?,
        };
        Ok(proven.then_some(id))
    }

    /// Returns the id of the token that a text would prove, if it is the right secret; `None` if it
    /// names none.
    #[must_use]
    pub fn named(&self, text: &str) -> Option<TokenId> {
        Secret::parse(text, &self.prefix).ok().map(|secret| secret.id())
    }

    /// Authenticates a caller by the secret that it presents as its credential, from a known or unknown
    /// address.
    ///
    /// # Errors
    /// [`AuthenticateError`]: the credential is not good, or that is not known.
    pub async fn authenticate(
        &self,
        text: &str,
        peer: Option<IpAddr>,
    ) -> Result<Credential, AuthenticateError> {
        let secret = Secret::parse(text, &self.prefix).map_err(|_| CredentialError::Malformed)?;
        let id = secret.id();
        let looked = self.find(id, Lane::Credential).await?;
        let record = looked.record.clone().ok_or(CredentialError::Invalid)?;
        let proven = match self.compare(&secret, &record) {
            Some(proven) => proven,
            None => self.prove_durably(secret, ClientKey::Peer(peer)).await?,
        };
        if !proven {
            return Err(CredentialError::Invalid.into());
        }
        let caller = self.judge_caller(id, &record, &looked, peer)?;
        Ok(Credential { caller, proof: Proof::Token { id, record, seen: CacheGeneration::never() } })
    }

    /// Authenticates a caller from a cache that is fresh at `present`; `None` when the cache cannot
    /// tell, or the credential is not good. What `proven` knows of this peer is not computed again.
    #[must_use]
    pub fn try_authenticate(
        &self,
        text: &str,
        peer: Option<IpAddr>,
        proven: &CredentialCache,
        present: &ReadPoint,
    ) -> Option<Arc<Credential>> {
        if let Some(credential) = proven.recall(text)
            && self.is_still_good(&credential, present)
        {
            return Some(credential);
        }
        let secret = Secret::parse(text, &self.prefix).ok()?;
        let looked = self.look_up_at(present, secret.id())?;
        let record = looked.record.clone()?;
        if !self.compare(&secret, &record)? {
            return None;
        }
        let id = secret.id();
        let caller = self.judge_caller(id, &record, &looked, peer).ok()?;
        let proof = Proof::Token { id, record, seen: CacheGeneration::never() };
        let credential = Arc::new(Credential { caller, proof });
        proven.remember(text, Arc::clone(&credential));
        Some(credential)
    }

    /// Judges a token's credential by a cache that is fresh at `present`; `false` also when the cache
    /// has no record, or another one than that of the last judgement.
    fn is_still_good(&self, credential: &Credential, present: &ReadPoint) -> bool {
        let Proof::Token { id, record, seen } = &credential.proof else { return false };
        let (peer, now) = (credential.caller.peer(), present.reading.now);
        let good =
            self.still_has(present, *id, record, seen) && Caller::check_record(record, peer, now).is_ok();
        if good {
            self.uses.note(*id, record, now);
        }
        good
    }

    /// Judges a proven credential again.
    ///
    /// # Errors
    /// [`AuthenticateError`]: it is no longer good, or that is not known.
    pub async fn judge_again(&self, credential: &mut Credential) -> Result<(), AuthenticateError> {
        match credential.proof {
            Proof::Certificate { not_after } => Ok(check_certificate(not_after)?),
            Proof::Token { id, .. } => {
                let looked = self.find(id, Lane::Credential).await?;
                self.renew(credential, &looked)
            }
        }
    }

    /// Judges a proven credential again from a cache that is fresh at `present`; `None` when the cache
    /// cannot tell.
    pub fn try_judge_again(
        &self,
        credential: &mut Credential,
        present: &ReadPoint,
    ) -> Option<Result<(), AuthenticateError>> {
        if self.is_still_good(credential, present) {
            return Some(Ok(()));
        }
        match credential.proof {
            Proof::Certificate { not_after } => Some(check_certificate(not_after).map_err(Into::into)),
            Proof::Token { id, .. } => {
                let looked = self.look_up_at(present, id)?;
                Some(self.renew(credential, &looked))
            }
        }
    }

    fn renew(&self, credential: &mut Credential, looked: &Looked) -> Result<(), AuthenticateError> {
        // The token was deleted since. The secret need not be proven again: an id never gets another
        // secret.
        let found = looked.record.as_ref().ok_or(CredentialError::Invalid)?;
        let Proof::Token { id, record, .. } = &mut credential.proof else { return Ok(()) };
        if found.is(record) && !looked.standing_in {
            Caller::check_record(found, credential.caller.peer(), looked.now)?;
            self.uses.note(*id, found, looked.now);
            return Ok(());
        }
        credential.caller = self.judge_caller(*id, found, looked, credential.caller.peer())?;
        record.clone_from(found);
        Ok(())
    }

    fn judge_caller(
        &self,
        id: TokenId,
        record: &Record,
        looked: &Looked,
        peer: Option<IpAddr>,
    ) -> Result<Caller, AuthenticateError> {
        let caller = Caller::from_record(id, record, peer, looked.now);
        if looked.standing_in && caller.is_err() {
            // Only a good credential is accepted for longer in an outage.
            return Err(Unknown::from(StoreError::Starting).into());
        }
        self.uses.note(id, record, looked.now);
        Ok(caller?)
    }
}

fn check_certificate(not_after: OffsetDateTime) -> Result<(), CredentialError> {
    if clock::now() <= not_after { Ok(()) } else { Err(CredentialError::Expired) }
}
