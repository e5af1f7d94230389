//! Reads the family of a token: what it was rotated from, and what was rotated from it. Called by the console.

use super::{ActionError, Actions};
use crate::domain::{Caller, Permission, Token};
use crate::secret::TokenId;

/// How many generations before a token are read at once, and as many after it. Others are read from those.
pub const GENERATIONS: u8 = 10;

impl Actions {
    /// Reads the stored members of a token's family, oldest first, with the token itself, for a caller with `tokend:read` or
    /// `tokend:self`.
    /// Those are left out that are more than ten generations away.
    ///
    /// # Errors
    /// [`ActionError`]: access, the database.
    pub async fn family(&self, caller: &Caller, id: TokenId) -> Result<Vec<Token>, ActionError> {
        let extent = caller.extent(Permission::ReadOwn)?;
        let mut members = self.admission.reads(caller).await?.read_family(id, GENERATIONS.into()).await?;
        members.retain(|member| extent.includes(member));
        Ok(members)
    }
}
