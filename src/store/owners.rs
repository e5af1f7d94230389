//! The lock of a user in an organization. Whatever makes a token of theirs holds it shared, whoever revokes all of
//! them holds it alone, from before its first read to its commit: so that no token in the making escapes.

use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::pooling::Transaction;
use crate::domain::{OrganizationId, UserId};

/// Waits for whoever revokes all of this user's tokens, and keeps others from beginning to.
pub(super) async fn lock_shared(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    user_id: &UserId,
) -> Result<(), StoreError> {
    // A statement of its own: what is read after it sees what was committed while it waited.
    sqlx::query!("SELECT pg_advisory_xact_lock_shared($1)", key(organization_id, user_id))
        .execute(transaction)
        .await?;
    Ok(())
}

/// Waits for whatever makes a token of this user, and keeps others from beginning to.
pub(super) async fn lock_alone(
    transaction: &mut Transaction,
    organization_id: &OrganizationId,
    user_id: &UserId,
) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", key(organization_id, user_id))
        .execute(transaction)
        .await?;
    Ok(())
}

/// Does the same for several users, in an order of its own, so that two that do never wait for each other.
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

/// Names the lock. Two users with the same name, one in 2^64, would only wait for each other.
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
