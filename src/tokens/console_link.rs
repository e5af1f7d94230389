//! Makes links that sign a person in to the console as the caller. Called by `CreateConsoleLink` and by the first
//! start of a private Postgres.

use secrecy::ExposeSecret as _;
use time::OffsetDateTime;

use super::{ActionError, Actions, MintError};
use crate::clock;
use crate::domain::{AccessError, Caller, Permission, Principal};
use crate::secret::{LinkCode, Prefix, Secret};
use crate::store::Store;

/// A link that was made.
#[derive(Debug)]
pub struct ConsoleLink {
    /// Its code, which is not stored.
    pub code: LinkCode,
    /// When it can no longer be used.
    pub expire_time: OffsetDateTime,
}

/// Why no link can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLink {
    /// This replica serves no console.
    #[error("this replica serves no console; set --console-listen, or ask a replica that does")]
    NotServed,
    /// The caller is a certificate, and a session stands for a token.
    #[error("a session of the console stands for a token, and this caller has none")]
    NoToken,
}

/// Checks that a caller may sign in to the console: what it shows needs one of these rights.
///
/// # Errors
/// [`AccessError`]: the caller has neither.
pub fn may_sign_in(caller: &Caller) -> Result<(), AccessError> {
    caller
        .require(Permission::ReadOwn)
        .or_else(|lacking| caller.require(Permission::WriteAll).map_err(|_| lacking))
}

impl Actions {
    /// Makes a link for a caller that may sign in.
    ///
    /// # Errors
    /// [`ActionError`]: access, the caller is not a token, the database.
    pub async fn create_console_link(&self, caller: &Caller) -> Result<ConsoleLink, ActionError> {
        may_sign_in(caller)?;
        let Principal::Token(token_id) = caller.principal else { return Err(NoLink::NoToken.into()) };
        let code = generate()?;
        let hash = code.hash();
        let store = self.admission.writes(caller).await?;
        let expire_time = store
            .retrying(async || {
                let mut transaction = store.begin().await?;
                let locked = transaction.lock_caller(caller, None).await?;
                let (caller, now) = locked.judge(&mut transaction).await?;
                may_sign_in(&caller)?;
                let expire_time = transaction.add_link(&hash, token_id, now).await?;
                transaction.commit().await?;
                Ok(expire_time)
            })
            .await?;
        Ok(ConsoleLink { code, expire_time })
    }
}

/// Makes a link for the first root token, whose secret was made just now.
///
/// # Errors
/// [`ActionError`]: the text is no secret, the database.
pub async fn link_for(
    store: &Store,
    secret: &secrecy::SecretString,
    prefix: &Prefix,
) -> Result<ConsoleLink, ActionError> {
    let secret = Secret::parse(secret.expose_secret(), prefix).map_err(|_| ActionError::NotFound)?;
    let code = generate()?;
    let mut transaction = store.begin().await?;
    let now = transaction.time().await?;
    let expire_time = transaction.add_link(&code.hash(), secret.id(), now).await?;
    transaction.commit().await?;
    Ok(ConsoleLink { code, expire_time })
}

pub(super) fn generate() -> Result<LinkCode, MintError> {
    LinkCode::generate(&mut clock::randomness()).map_err(|error| MintError::Randomness(error.into()))
}
