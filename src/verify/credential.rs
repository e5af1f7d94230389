//! A caller's own credential: proven once, judged again at each use. Called by the gRPC API, for every
//! call and for every round of a stream.

use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use super::cache_generation::CacheGeneration;
use super::engine::Engine;
use super::read_point::{LookupResult, ReadPoint};
use super::read_queue::Lane;
use super::{AuthenticateError, ClientKey, CredentialCache, ProveError, VerdictError};
use crate::clock;
use crate::domain::{Caller, CredentialError, Portal, Principal, Record};
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
    Token { id: TokenId, record: Record, generation: CacheGeneration },
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

    /// Returns the record of the caller's own token; `None` for a certificate.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match &self.proof {
            Proof::Token { record, .. } => Some(record),
            Proof::Certificate { .. } => None,
        }
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
        let lookup = self.find(id, Lane::Secret).await?;
        let Some(record) = &lookup.record else { return Ok(None) };
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
        let lookup = self.find(id, Lane::Credential).await?;
        let record = lookup.record.clone().ok_or(CredentialError::Invalid)?;
        let proven = match self.compare(&secret, &record) {
            Some(proven) => proven,
            None => self.prove_durably(secret, ClientKey::peer(peer)).await?,
        };
        if !proven {
            return Err(CredentialError::Invalid.into());
        }
        let caller = self.judge_caller(id, &record, &lookup, peer)?;
        Ok(Credential { caller, proof: Proof::Token { id, record, generation: CacheGeneration::never() } })
    }

    /// Authenticates a caller that has proven the secret of this token before, and that a session stands
    /// for: the token is judged anew. An id never gets another secret.
    ///
    /// # Errors
    /// [`AuthenticateError`]: the credential is no longer good, or that is not known.
    pub async fn authenticate_again(
        &self,
        id: TokenId,
        peer: Option<IpAddr>,
    ) -> Result<Credential, AuthenticateError> {
        let lookup = self.find(id, Lane::Credential).await?;
        let record = lookup.record.clone().ok_or(CredentialError::Invalid)?;
        let caller = self.judge_caller(id, &record, &lookup, peer)?;
        Ok(Credential { caller, proof: Proof::Token { id, record, generation: CacheGeneration::never() } })
    }

    /// Authenticates the caller of a portal session, which is stored and not over: the token that vouches for the person
    /// is judged anew.
    ///
    /// # Errors
    /// [`AuthenticateError`]: the token is no longer good, or may not vouch any more, or that is not known.
    pub async fn authenticate_portal(
        &self,
        portal: Portal,
        peer: Option<IpAddr>,
    ) -> Result<Credential, AuthenticateError> {
        let id = portal.token_id;
        let lookup = self.find(id, Lane::Credential).await?;
        let record = lookup.record.clone().ok_or(CredentialError::PortalOver)?;
        let caller = self.judge_portal(&Arc::new(portal), &record, &lookup, peer)?;
        Ok(Credential { caller, proof: Proof::Token { id, record, generation: CacheGeneration::never() } })
    }

    /// Authenticates a caller from a cache that is fresh at `read_point`; `None` when the cache cannot
    /// tell, or the credential is not good. What `proven` knows of this peer is not computed again.
    #[must_use]
    pub fn try_authenticate(
        &self,
        text: &str,
        peer: Option<IpAddr>,
        proven: &CredentialCache,
        read_point: &ReadPoint,
    ) -> Option<Arc<Credential>> {
        if let Some(credential) = proven.recall(text)
            && self.is_still_good(&credential, read_point)
        {
            return Some(credential);
        }
        let secret = Secret::parse(text, &self.prefix).ok()?;
        let lookup = self.look_up_at(read_point, secret.id())?;
        let record = lookup.record.clone()?;
        if !self.compare(&secret, &record)? {
            return None;
        }
        let id = secret.id();
        let caller = self.judge_caller(id, &record, &lookup, peer).ok()?;
        let proof = Proof::Token { id, record, generation: CacheGeneration::never() };
        let credential = Arc::new(Credential { caller, proof });
        proven.remember(text, Arc::clone(&credential));
        Some(credential)
    }

    /// Judges a token's credential by a cache that is fresh at `read_point`; `false` also when the cache
    /// has no record, or another one than that of the last judgement.
    fn is_still_good(&self, credential: &Credential, read_point: &ReadPoint) -> bool {
        let Proof::Token { id, record, generation } = &credential.proof else { return false };
        let (peer, now) = (credential.caller.peer(), read_point.reading.now);
        let good = self.still_has(read_point, *id, record, generation)
            && Caller::check_record(record, peer, now).is_ok();
        if good {
            self.usage.note(*id, record, now);
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
                let lookup = self.find(id, Lane::Credential).await?;
                self.renew(credential, &lookup)
            }
        }
    }

    /// Judges a proven credential again from a cache that is fresh at `read_point`; `None` when the cache
    /// cannot tell.
    pub fn try_judge_again(
        &self,
        credential: &mut Credential,
        read_point: &ReadPoint,
    ) -> Option<Result<(), AuthenticateError>> {
        if self.is_still_good(credential, read_point) {
            return Some(Ok(()));
        }
        match credential.proof {
            Proof::Certificate { not_after } => Some(check_certificate(not_after).map_err(Into::into)),
            Proof::Token { id, .. } => {
                let lookup = self.look_up_at(read_point, id)?;
                Some(self.renew(credential, &lookup))
            }
        }
    }

    fn renew(&self, credential: &mut Credential, lookup: &LookupResult) -> Result<(), AuthenticateError> {
        // The token was deleted since. The secret need not be proven again: an id never gets another
        // secret.
        let found = lookup.record.as_ref().ok_or(CredentialError::Invalid)?;
        let Proof::Token { id, record, .. } = &mut credential.proof else { return Ok(()) };
        if let Principal::Portal(portal) = &credential.caller.principal {
            let caller = self.judge_portal(portal, found, lookup, credential.caller.peer())?;
            credential.caller = caller;
            record.clone_from(found);
            return Ok(());
        }
        if found.is(record) && !lookup.is_stale {
            Caller::check_record(found, credential.caller.peer(), lookup.now)?;
            self.usage.note(*id, found, lookup.now);
            return Ok(());
        }
        credential.caller = self.judge_caller(*id, found, lookup, credential.caller.peer())?;
        record.clone_from(found);
        Ok(())
    }

    fn judge_caller(
        &self,
        id: TokenId,
        record: &Record,
        lookup: &LookupResult,
        peer: Option<IpAddr>,
    ) -> Result<Caller, AuthenticateError> {
        let caller = Caller::from_record(id, record, peer, lookup.now);
        if lookup.is_stale && caller.is_err() {
            // Only a good credential is accepted for longer in an outage.
            return Err(VerdictError::from(StoreError::Starting).into());
        }
        self.usage.note(id, record, lookup.now);
        Ok(caller?)
    }

    fn judge_portal(
        &self,
        portal: &Arc<Portal>,
        record: &Record,
        lookup: &LookupResult,
        peer: Option<IpAddr>,
    ) -> Result<Caller, AuthenticateError> {
        let vouching = Caller::vouching_record(portal.token_id, record, lookup.now);
        let caller = Caller::in_portal(portal, vouching, peer)?;
        self.usage.note(portal.token_id, record, lookup.now);
        Ok(caller)
    }
}

fn check_certificate(not_after: OffsetDateTime) -> Result<(), CredentialError> {
    if clock::now() <= not_after { Ok(()) } else { Err(CredentialError::Expired) }
}
