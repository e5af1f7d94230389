//! Creating a token: a new secret, its two verifiers, and the record, in this order, so that the record
//! never exists without them. Called by `CreateToken` and, for the parts, by bootstrap.

use std::sync::Arc;

use secrecy::SecretString;
use time::OffsetDateTime;

use super::{ActionError, Actions, MintError};
use crate::ambient;
use crate::domain::{
    Caller, Expiration, Labels, Networks, OrganizationId, Permission, Scopes, Token, TokenName, UserId,
};
use crate::secret::{DurableCost, DurableHash, Keyring, Mac, Prefix, Secret, TokenId};
use crate::store::NewToken;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct CreateToken {
    /// Where the token is to live; `None`: see [`Caller::organization`].
    pub organization_id: Option<OrganizationId>,
    /// Who it is to belong to.
    pub user_id: UserId,
    /// What it is to be called.
    pub name: TokenName,
    /// When it is to end.
    pub expiration: Expiration,
    /// What it is to allow.
    pub scopes: Scopes,
    /// What is to be noted on it.
    pub labels: Labels,
    /// Where it may be used from.
    pub allowed_cidrs: Networks,
}

/// A token and, this once, its secret.
#[derive(Debug)]
pub struct Created {
    /// The record.
    pub token: Token,
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
}

impl Actions {
    /// Creates a token for a caller with `tokend:write`.
    ///
    /// # Errors
    /// [`ActionError`]: access, an end that is not in the future, overload, the database.
    pub async fn create_token(&self, caller: &Caller, request: CreateToken) -> Result<Created, ActionError> {
        // Asked again inside the transaction; here so that a refusal costs no hash.
        caller.require(Permission::Write)?;
        caller.organization(request.organization_id.clone())?;

        let _place = self.creations.take(caller.principal.clone())?;
        let (keyring, prefix, cost) = (Arc::clone(&self.keyring), self.prefix.clone(), self.durable_cost);
        let minted = self.hashing.run(move || mint(&keyring, &prefix, cost)).await??;
        let prepare = |caller: &Caller, now| prepare(caller, now, &request, &minted);
        let token = self.store.create_token(caller, prepare).await??;
        Ok(Created { token, secret: minted.text })
    }
}

/// Makes a secret and its verifiers. Takes 16 ms and 19 MiB at the default cost: run it where it may
/// block.
pub(super) fn mint(keyring: &Keyring, prefix: &Prefix, cost: DurableCost) -> Result<Minted, MintError> {
    let mut randomness = ambient::randomness();
    let no_randomness = |error| MintError::Randomness(Box::new(error));
    let id = TokenId::generate(ambient::unix_millis(), &mut randomness).map_err(no_randomness)?;
    let secret = Secret::generate(id, &mut randomness).map_err(no_randomness)?;
    Ok(Minted {
        id,
        mac: keyring.mac(&secret),
        durable_hash: DurableHash::compute(&secret, cost, &mut randomness)?,
        text: secret.render(prefix),
    })
}

fn prepare(
    caller: &Caller,
    now: OffsetDateTime,
    request: &CreateToken,
    minted: &Minted,
) -> Result<NewToken, ActionError> {
    caller.require(Permission::Write)?;
    let organization_id = caller.organization(request.organization_id.clone())?;
    let expire_time = super::resolve(request.expiration, now)?;
    caller.may_grant(&request.scopes, expire_time, &request.allowed_cidrs)?;
    Ok(NewToken {
        token: Token {
            id: minted.id,
            organization_id,
            user_id: request.user_id.clone(),
            name: request.name.clone(),
            scopes: request.scopes.clone(),
            labels: request.labels.clone(),
            allowed_cidrs: request.allowed_cidrs.clone(),
            create_time: now,
            created_by: caller.principal.clone(),
            expire_time,
            last_use_time: None,
            revoke_time: None,
            revoke_reason: None,
        },
        mac: minted.mac,
        durable_hash: minted.durable_hash.clone(),
    })
}
