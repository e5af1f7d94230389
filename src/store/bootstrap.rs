//! The first root token. Called by `tokend bootstrap` and by the first start of a private Postgres.

use super::clock::earlier;
use super::locks::clock;
use super::tokens::NewToken;
use super::{Store, StoreError, roots};
use crate::domain::Principal;
use crate::domain::event::EventKind;
use crate::domain::scope::ReservedScope;

/// The outcome of storing a first root token.
#[derive(Debug)]
pub enum FirstRoot {
    /// It was stored.
    Stored,
    /// There is an active root token already; nothing was stored.
    Exists,
}

impl Store {
    /// Stores the root token that `prepare` makes, given the time read under the lock, unless an active
    /// one exists. `prepare` runs once, before the commit, and may save the secret somewhere; when it
    /// fails, nothing is stored.
    ///
    /// # Errors
    /// [`StoreError::BeforeCommit`] when `prepare` fails; otherwise as for every call of the store.
    pub async fn store_first_root(
        &self,
        prepare: impl FnOnce(time::OffsetDateTime) -> std::io::Result<NewToken>,
    ) -> Result<FirstRoot, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            roots::lock(&mut transaction).await?;
            let now = clock(&mut transaction).await?;
            // At the start there is no earlier reading to compare the database's clock with: if it is ahead, a root token
            // must not look expired.
            let found = sqlx::query!(
                r#"SELECT EXISTS (
                       SELECT FROM tokens WHERE scopes @> ARRAY[$1::text] AND revoke_time IS NULL
                       AND disable_time IS NULL AND user_disable_time IS NULL
                       AND (expire_time IS NULL OR expire_time > $2)) AS "exists!""#,
                ReservedScope::Root.word(),
                earlier(now)
            )
            .fetch_one(&mut transaction)
            .await?;
            if found.exists {
                return Ok(FirstRoot::Exists);
            }
            let new = prepare(now).map_err(StoreError::BeforeCommit)?;
            transaction.insert_token(&new).await?;
            let (token, by) = (&new.token, &Principal::Bootstrap);
            transaction.append_event(EventKind::Created, (None, token), by, now).await?;
            transaction.commit().await?;
            Ok(FirstRoot::Stored)
        })
        .await
    }
}
