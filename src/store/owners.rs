//! The lock of a user in an organization. A transaction that creates a token of the user holds it
//! shared, one that revokes all of them or disables the user holds it exclusively, from before its first
//! read to its commit: so no token in creation escapes. A person and a service account of one id share
//! it, which costs a wait and nothing else.

use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::transaction::Transaction;
use crate::domain::{OrganizationId, Owner, UserId};

impl Transaction {
    /// Takes the lock of a user whose tokens are all to be revoked, disabled or enabled. Before any other
    /// lock.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_owner_alone(&mut self, owner: Owner<'_>) -> Result<(), StoreError> {
        lock_alone(self, owner).await
    }
}

impl Transaction {
    /// Takes the lock of a user for whom a portal session is made, shared. Before any other lock.
    ///
    /// # Errors
    /// [`StoreError`], as for every statement.
    pub async fn lock_owner_of_portal(&mut self, owner: Owner<'_>) -> Result<(), StoreError> {
        lock_shared(self, owner).await
    }
}

/// Takes the user's lock shared: waits for a revocation of all their tokens, and blocks others from
/// starting.
pub(super) async fn lock_shared(
    transaction: &mut Transaction,
    Owner { organization_id, user_id, .. }: Owner<'_>,
) -> Result<(), StoreError> {
    // A separate statement: what is read after it sees what was committed while it waited.
    sqlx::query!("SELECT pg_advisory_xact_lock_shared($1)", key(organization_id, user_id))
        .execute(transaction)
        .await?;
    Ok(())
}

/// Takes the user's lock exclusively: waits for transactions that create their tokens, and blocks
/// others from starting.
pub(super) async fn lock_alone(
    transaction: &mut Transaction,
    Owner { organization_id, user_id, .. }: Owner<'_>,
) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", key(organization_id, user_id))
        .execute(transaction)
        .await?;
    Ok(())
}

/// Takes the exclusive locks of several users, in a fixed order, so that two such calls never deadlock.
pub(super) async fn lock_each_alone(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    user_ids: impl Iterator<Item = &UserId>,
) -> Result<(), StoreError> {
    let mut keys: Vec<i64> = user_ids.map(|user_id| key(organization_id, user_id)).collect();
    keys.sort_unstable();
    keys.dedup();
    sqlx::query!("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key", &keys)
        .fetch_all(transaction)
        .await?;
    Ok(())
}

/// Returns the key of the lock. Two users with the same key, one pair in 2^64, would only wait for each
/// other.
fn key(organization_id: &OrganizationId, user_id: &UserId) -> i64 {
    let mut digest = Sha256::new_with_prefix(b"tokend/owner-lock/1");
    for part in [organization_id.as_str(), user_id.as_str()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    i64::from_be_bytes(*first)
}
