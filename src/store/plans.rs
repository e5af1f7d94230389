//! Plans and their limits, as tokens name them. Called by the actions that set, read and delete plans, and by those that
//! set the plan of a token. Knows no rule of limits.

use super::StoreError;
use super::pooling::Transaction;
use crate::domain::{OrganizationId, PlanName};

impl Transaction {
    /// Returns whether a plan exists, and keeps it from being deleted. After the locks of tokens.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn hold_plan(
        &mut self,
        organization_id: &OrganizationId,
        name: &PlanName,
    ) -> Result<bool, StoreError> {
        // The lock that the foreign key of a token takes too.
        let found = sqlx::query!(
            "SELECT FROM plans WHERE organization_id = $1 AND name = $2 FOR KEY SHARE",
            organization_id.as_str(),
            name.as_str()
        )
        .fetch_optional(self)
        .await?;
        Ok(found.is_some())
    }
}
