//! Creates the first root token, without which nobody could call anything. Called by `tokend bootstrap`
//! and by the first start of a private Postgres.

use secrecy::SecretString;

use super::mint::{Minted, mint};
use super::{ActionError, MintError};
use crate::domain::scope::ReservedScope;
use crate::domain::{OrganizationId, Principal, Scope, Scopes, Token, TokenName, UserId};
use crate::secret::{DurableCost, Keyring, Prefix};
use crate::store::{FirstRoot, NewToken, Store};

/// The outcome of creating a first root token.
#[derive(Debug)]
pub enum Bootstrapped {
    /// It was created; this is its secret.
    Created(SecretString),
    /// There is an active root token already.
    Exists,
}

/// Creates a root token that never expires, unless an active one exists. `persist` gets the secret
/// before the token exists and may save it; when it fails, no token is created. Blocks for one hash.
///
/// # Errors
/// [`ActionError::Store`] (the database, or `persist`) and [`ActionError::Minting`].
pub async fn bootstrap(
    store: &Store,
    keyring: &Keyring,
    prefix: &Prefix,
    durable_cost: DurableCost,
    persist: impl FnOnce(&SecretString) -> std::io::Result<()>,
) -> Result<Bootstrapped, ActionError> {
    let minted = mint(keyring, prefix, durable_cost, None)?;
    let token = root_token(&minted)?;
    let Minted { text, mac, durable_hash, .. } = minted;
    let stored = store
        .store_first_root(|now| {
            persist(&text)?;
            Ok(NewToken { token: Token { create_time: now, ..token }, mac, durable_hash })
        })
        .await?;
    Ok(match stored {
        FirstRoot::Stored => Bootstrapped::Created(text),
        FirstRoot::Exists => Bootstrapped::Exists,
    })
}

fn root_token(minted: &Minted) -> Result<Token, MintError> {
    let impossible = |error| MintError::RootToken(error);
    let owner = (OrganizationId::default_organization(), UserId::parse("root").map_err(impossible)?);
    let name = TokenName::parse("bootstrap").map_err(impossible)?;
    let creation = (time::OffsetDateTime::UNIX_EPOCH, Principal::Bootstrap);
    Ok(Token {
        scopes: Scopes::new(vec![Scope::from(ReservedScope::Root)]).map_err(impossible)?,
        ..Token::new(minted.id, owner, name, creation)
    })
}
