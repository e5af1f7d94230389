//! Returns one token. Called by `GetToken`.

use time::OffsetDateTime;

use super::{ActionError, Actions};
use crate::domain::{Caller, Permission, Token};
use crate::secret::TokenId;

impl Actions {
    /// Returns the time from which on every replica knows what was committed before this call: for a change whose
    /// answer does not have it.
    ///
    /// # Errors
    /// [`ActionError`]: the database.
    pub async fn effective_time(&self, caller: &Caller) -> Result<OffsetDateTime, ActionError> {
        Ok(self.admission.writes(caller).await?.effective_time().await?)
    }

    /// Reads a token by its id, for a caller with `tokend:read` or `tokend:self`, and the time at which its state is
    /// judged.
    ///
    /// # Errors
    /// [`ActionError`]: access, no such token in reach, the database.
    pub async fn get_token(
        &self,
        caller: &Caller,
        id: TokenId,
    ) -> Result<(Token, OffsetDateTime), ActionError> {
        let extent = caller.extent(Permission::ReadOwn)?;
        let found = self.admission.reads(caller).await?.read_token(id).await?;
        found.filter(|(token, _)| extent.includes(token)).ok_or(ActionError::NotFound)
    }
}
