//! Reading what Verify judges: token records with their MACs, and the durable verifier for the rare case
//! that a MAC's key is gone. Called by the engine alone.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::num::NonZeroU64;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Row as _, ValueRef as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::line::{Epoch, Line, within};
use super::rows::{self, TokenRow};
use super::{Store, StoreError};
use crate::domain::Record;
use crate::secret::{DurableHash, Mac, TokenId};

/// What one read of records found.
#[derive(Debug)]
pub struct Loaded {
    /// The database's time before the read took its snapshot: the records are at least as new.
    pub as_of: OffsetDateTime,
    /// Those of the wanted records that exist, in no order.
    pub records: Vec<(TokenId, Record)>,
}

/// Reads the records whose ids are in `$1`. Beside them, and also when there are none, the database's time and
/// whether its epoch is that in `$2`. Not checked by the compiler, since rows are looked at before they are decoded:
/// each test that verifies anything does.
const LOAD: &str = "
    SELECT always.as_of, always.same_epoch,
        t.id, organization_id, user_id, name, scopes, labels, allowed_cidrs::text[], create_time, created_by,
        expire_time, revoke_time, revoke_reason, rotated_from, disable_time, mac, mac_key_id
    FROM (SELECT now() AS as_of, (SELECT epoch FROM server_epoch) IS NOT DISTINCT FROM $2 AS same_epoch)
        AS always
        LEFT JOIN tokens t ON t.id = ANY($1)";

/// Its columns: the first two are of the database, all others of the token.
const AS_OF: usize = 0;
const SAME_EPOCH: usize = 1;
const ID: usize = 2;

/// Tells rows apart by a fingerprint of all that they hold: `SipHash` under keys that this process drew, 64 bits. Of two
/// different rows of a token, one is taken for the other once in 2^64 times, and nobody can choose a row so that it is.
#[derive(Debug, Clone, Default)]
pub struct Fingerprints(RandomState);

impl Fingerprints {
    fn of(&self, row: &PgRow) -> Result<NonZeroU64, sqlx::Error> {
        let mut hasher = self.0.build_hasher();
        for column in ID..row.len() {
            let value = row.try_get_raw(column)?;
            if value.is_null() {
                // No value is that long.
                hasher.write_usize(usize::MAX);
            } else {
                let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
                hasher.write_usize(bytes.len());
                hasher.write(bytes);
            }
        }
        Ok(NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MAX))
    }
}

impl Line {
    /// Reads the records with these ids in one statement. A record that is `known` already, of the very same row, is
    /// not made anew, which takes half of the time that reading takes here.
    ///
    /// # Errors
    /// [`StoreError::OtherServer`] when another life of a server than `epoch` answered; the rest as for every
    /// call of the store, also when no answer came by `deadline`.
    pub async fn load_records(
        &mut self,
        ids: &[TokenId],
        known: impl Fn(TokenId) -> Option<Record>,
        fingerprints: &Fingerprints,
        epoch: &Epoch,
        deadline: Duration,
    ) -> Result<Loaded, StoreError> {
        let ids: Vec<_> = ids.iter().copied().map(rows::uuid).collect();
        within(deadline, async {
            let found = sqlx::query(LOAD).bind(&ids).bind(epoch.as_str()).fetch_all(self.0.single()).await?;
            let first = found.first().ok_or(sqlx::Error::RowNotFound)?;
            if !first.try_get::<bool, _>(SAME_EPOCH)? {
                return Err(StoreError::OtherServer);
            }
            let as_of = first.try_get(AS_OF)?;
            let mut records = Vec::with_capacity(found.len());
            for row in &found {
                let Some(id) = row.try_get::<Option<Uuid>, _>(ID)? else { continue };
                let id = rows::token_id(id);
                let fingerprint = fingerprints.of(row)?;
                let record = match known(id).filter(|record| record.row() == Some(fingerprint)) {
                    Some(record) => record,
                    None => made(row, fingerprint, as_of)?,
                };
                records.push((id, record));
            }
            Ok(Loaded { as_of, records })
        })
        .await
    }
}

/// Makes a record of a row.
fn made(row: &PgRow, fingerprint: NonZeroU64, as_of: OffsetDateTime) -> Result<Record, StoreError> {
    let token = TokenRow {
        id: row.try_get("id")?,
        organization_id: row.try_get("organization_id")?,
        user_id: row.try_get("user_id")?,
        name: row.try_get("name")?,
        scopes: row.try_get("scopes")?,
        labels: row.try_get("labels")?,
        allowed_cidrs: row.try_get("allowed_cidrs")?,
        create_time: row.try_get("create_time")?,
        created_by: row.try_get("created_by")?,
        expire_time: row.try_get("expire_time")?,
        revoke_time: row.try_get("revoke_time")?,
        revoke_reason: row.try_get("revoke_reason")?,
        rotated_from: row.try_get("rotated_from")?,
        disable_time: row.try_get("disable_time")?,
        last_use_time: None,
        read_time: as_of,
    };
    let mac = rows::mac(row.try_get("mac_key_id")?, row.try_get("mac")?)?;
    Ok(Record::of_row(&token.try_into()?, mac, fingerprint))
}

impl Store {
    /// Reads both verifiers of a token; `None` when there is no such token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn load_verifiers(&self, id: TokenId) -> Result<Option<(Mac, DurableHash)>, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                "SELECT mac, mac_key_id, durable_hash FROM tokens WHERE id = $1",
                rows::uuid(id)
            )
            .fetch_optional(self.single()?)
            .await?;
            row.map(|row| {
                let mac = rows::mac(&row.mac_key_id, &row.mac)?;
                Ok((mac, DurableHash::from_phc(row.durable_hash)))
            })
            .transpose()
        })
        .await
    }
}
