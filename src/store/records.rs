//! Reading what Verify judges: token records with their MACs, and the durable verifier for the rare case
//! that a MAC's key is gone. Called by the engine alone.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
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

/// Reads the rows whose ids are in `$1`. Beside them, and also when there are none, the database's time and
/// whether its epoch is that in `$2`. Not checked by the compiler, to which any column could be lacking: each test
/// that verifies anything does.
const LOAD: &str = "
    SELECT always.as_of, always.same_epoch,
        t.id, organization_id, user_id, name, scopes, labels, allowed_cidrs::text[], create_time, created_by,
        expire_time, revoke_time, revoke_reason, rotated_from, disable_time, mac, mac_key_id, revision
    FROM (SELECT now() AS as_of, (SELECT epoch FROM server_epoch) IS NOT DISTINCT FROM $2 AS same_epoch)
        AS always
        LEFT JOIN tokens t ON t.id = ANY($1)";

impl Line {
    /// Reads the records with these ids. Of those that are `known` already only their rows' revisions are read,
    /// and whole rows where that is another.
    ///
    /// # Errors
    /// [`StoreError::OtherServer`] when another life of a server than `epoch` answered; the rest as for every
    /// call of the store, also when no answer came by `deadline`.
    pub async fn load_records(
        &mut self,
        ids: &[TokenId],
        known: impl Fn(TokenId) -> Option<Record>,
        epoch: &Epoch,
        deadline: Duration,
    ) -> Result<Loaded, StoreError> {
        within(deadline, async {
            let mut held = HashMap::new();
            let mut wanted = Vec::new();
            for &id in ids {
                match known(id).filter(|record| record.revision().is_some()) {
                    Some(record) => _ = held.insert(rows::uuid(id), record),
                    None => wanted.push(rows::uuid(id)),
                }
            }
            // So few are not worth a statement of their own.
            if held.len() < wanted.len() {
                wanted.extend(held.keys());
                return self.load(&wanted, epoch).await;
            }
            let (mut loaded, changed) = self.compare(held, epoch).await?;
            wanted.extend(changed);
            if !wanted.is_empty() {
                // What was true before the first statement is true of the second: it keeps that time.
                loaded.records.extend(self.load(&wanted, epoch).await?.records);
            }
            Ok(loaded)
        })
        .await
    }

    /// Reads the revisions of rows, for which their index is enough. Returns the records that are their rows' still,
    /// and the ids of those that are not.
    async fn compare(
        &mut self,
        mut held: HashMap<Uuid, Record>,
        epoch: &Epoch,
    ) -> Result<(Loaded, Vec<Uuid>), StoreError> {
        let ids: Vec<_> = held.keys().copied().collect();
        let rows = sqlx::query!(
            r#"SELECT always.as_of AS "as_of!", always.same_epoch AS "same_epoch!", t.id AS "id?", t.revision AS "revision?"
               FROM (SELECT now() AS as_of, (SELECT epoch FROM server_epoch) IS NOT DISTINCT FROM $2 AS same_epoch)
                   AS always
                   LEFT JOIN tokens t ON t.id = ANY($1)"#,
            &ids,
            epoch.as_str()
        )
        .fetch_all(self.0.single())
        .await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let as_of = followed(first.same_epoch, first.as_of)?;
        let mut records = Vec::with_capacity(rows.len());
        let mut changed = Vec::new();
        for row in rows {
            let Some(id) = row.id else { continue };
            let now = row.revision.and_then(bits);
            match held.remove(&id).filter(|record| record.revision() == now) {
                Some(record) => records.push((rows::token_id(id), record)),
                None => changed.push(id),
            }
        }
        Ok((Loaded { as_of, records }, changed))
    }

    /// Reads rows.
    async fn load(&mut self, ids: &[Uuid], epoch: &Epoch) -> Result<Loaded, StoreError> {
        let rows = sqlx::query(LOAD).bind(ids).bind(epoch.as_str()).fetch_all(self.0.single()).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let as_of = followed(first.try_get("same_epoch")?, first.try_get("as_of")?)?;
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(id) = row.try_get::<Option<Uuid>, _>("id")? {
                records.push((rows::token_id(id), made(row, as_of)?));
            }
        }
        Ok(Loaded { as_of, records })
    }
}

/// Returns the database's time, if its server is the one that is followed.
fn followed(same_epoch: bool, as_of: OffsetDateTime) -> Result<OffsetDateTime, StoreError> {
    if same_epoch { Ok(as_of) } else { Err(StoreError::OtherServer) }
}

/// Returns 62 random bits of a revision: of two changes of a token one is taken for the other once in 2^62 times.
fn bits(revision: Uuid) -> Option<NonZeroU64> {
    NonZeroU64::new(revision.as_u64_pair().1)
}

/// Makes a record of a row.
fn made(row: &PgRow, as_of: OffsetDateTime) -> Result<Record, StoreError> {
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
    let revision: Option<Uuid> = row.try_get("revision")?;
    Ok(Record::of_row(&token.try_into()?, mac, revision.and_then(bits)))
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
