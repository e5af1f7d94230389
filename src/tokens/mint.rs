//! Makes a new secret with its verifiers; for a request with an id, one that can be derived again. Used
//! by creation, rotation and bootstrap.

use std::sync::Arc;

use secrecy::SecretString;
use time::OffsetDateTime;

use super::request::Repeatable;
use super::{ActionError, Actions, MintError};
use crate::clock;
use crate::domain::{Caller, Token};
use crate::secret::{DurableCost, DurableHash, Keyring, Mac, Prefix, RequestSalt, Secret, TokenId};
use crate::store::{KnownRequest, NewRequest};

/// A token with its secret, which is returned only here.
#[derive(Debug)]
pub struct Created {
    /// The record.
    pub token: Token,
    /// The time at which its state is judged.
    pub now: OffsetDateTime,
    /// The secret's text.
    pub secret: SecretString,
}

/// A new secret with everything that is derived from it.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) id: TokenId,
    pub(super) text: SecretString,
    pub(super) mac: Mac,
    pub(super) durable_hash: DurableHash,
    /// The salt that the secret was derived from, if it was derived.
    pub(super) salt: Option<RequestSalt>,
}

impl Repeatable {
    /// Returns what to store of the request whose secret was just made.
    pub(super) fn note(&self, keyring: &Keyring, minted: &Minted) -> Option<NewRequest> {
        Some(NewRequest {
            request_mac: self.mac(),
            body_mac: keyring.sign_request(&self.body.0),
            salt: minted.salt?,
            token_id: minted.id,
        })
    }
}

impl Actions {
    /// Finds the earlier result of the request with this MAC, with the caller judged again.
    pub(super) async fn known(
        &self,
        caller: &Caller,
        mac: &[u8; 32],
    ) -> Result<Option<(Caller, KnownRequest)>, ActionError> {
        let store = self.admission.writes(caller).await?;
        store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, _) = locked.judge(&mut transaction).await?;
                let Some(known) = transaction.find_request(mac).await? else { return Ok(None) };
                transaction.commit().await?;
                Ok(Some((caller, known)))
            })
            .await
    }

    /// Makes a secret and its verifiers on the hash pool.
    pub(super) async fn minted(
        &self,
        keyring: &Arc<Keyring>,
        repeatable: Option<&Repeatable>,
    ) -> Result<Minted, ActionError> {
        let (keyring, prefix, cost) = (Arc::clone(keyring), self.prefix.clone(), self.durable_cost);
        let repeatable = repeatable.cloned();
        let minted = self.hashing.run(move || mint(&keyring, &prefix, cost, repeatable.as_ref())).await;
        Ok(minted??)
    }

    /// Returns the earlier result again, if the request is the same.
    pub(super) fn repeated(&self, request: &Repeatable, known: KnownRequest) -> Result<Created, ActionError> {
        let unrepeatable = || ActionError::Unrepeatable(known.token_id);
        // First: without the key, it is not known either whether the request is the same.
        let context = request.context(known.token_id);
        let keyring = self.keyring.get();
        let secret = keyring.derive_secret(known.body_mac.key_id, known.salt, &context);
        let secret = secret.ok_or_else(unrepeatable)?;
        if !keyring.check_request(&request.body.0, &known.body_mac) {
            return Err(ActionError::RequestIdReused);
        }
        let (token, now) = known.token.ok_or_else(|| ActionError::Unrepeatable(known.token_id))?;
        Ok(Created { token, now, secret: secret.render(&self.prefix) })
    }
}

impl Created {
    /// Creates the result for a new token.
    pub(super) fn new(token: Token, minted: Minted) -> Self {
        Self { now: token.create_time, token, secret: minted.text }
    }
}

/// Makes a secret and its verifiers; for a request with an id, a secret that can be derived again.
/// Takes 16 ms and 19 MiB at the default cost: run it where blocking is allowed.
pub(super) fn mint(
    keyring: &Keyring,
    prefix: &Prefix,
    cost: DurableCost,
    repeatable: Option<&Repeatable>,
) -> Result<Minted, MintError> {
    let mut randomness = clock::randomness();
    let no_randomness = |error| MintError::Randomness(Box::new(error));
    let id = TokenId::generate(clock::unix_millis(), &mut randomness).map_err(no_randomness)?;
    let (secret, salt) = match repeatable {
        None => (Secret::generate(id, &mut randomness).map_err(no_randomness)?, None),
        Some(request) => {
            let salt = RequestSalt::generate(&mut randomness).map_err(no_randomness)?;
            let secret = keyring.derive_secret(keyring.primary(), salt, &request.context(id));
            (secret.ok_or(MintError::NoKey)?, Some(salt))
        }
    };
    Ok(Minted {
        id,
        mac: keyring.mac(&secret),
        durable_hash: DurableHash::compute(&secret, cost, &mut randomness)?,
        text: secret.render(prefix),
        salt,
    })
}
