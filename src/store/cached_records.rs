//! Reads what Verify judges: token records with their MACs, and the durable verifier for the rare case
//! that a MAC's key is gone. Called by the engine alone.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::clock::Epoch;
use super::columns::{Lenient, Time, unreadable_token};
use super::connection::{Connection, within};
use super::rows::{self, TokenRow, token_query};
use super::{Store, StoreError};
use crate::domain::Record;
use crate::secret::{DurableHash, Mac, TokenId};

/// The result of one read of records.
#[derive(Debug)]
pub struct Loaded {
    /// The database's time before the read took its snapshot: the records are at least as new.
    pub as_of: OffsetDateTime,
    /// The requested records that exist, in no order.
    pub records: Vec<(TokenId, Record)>,
    /// The requested ids whose rows cannot be read, each with the error.
    pub unreadable: Vec<(TokenId, StoreError)>,
}

impl Connection {
    /// Reads the records with these ids. For those that are already `known`, only the revisions of
    /// their rows are read, and whole rows only where the revision differs.
    ///
    /// # Errors
    /// [`StoreError::OtherServer`] when a server in another epoch than `epoch` responded; the rest as
    /// for every call of the store, also when no response came by `deadline`.
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
            // So few are not worth a separate statement.
            if held.len() < wanted.len() {
                wanted.extend(held.keys());
                return self.load(&wanted, epoch).await;
            }
            let (mut loaded, changed) = self.compare(held, epoch).await?;
            wanted.extend(changed);
            if !wanted.is_empty() {
                // What was true before the first statement is true for the second: it keeps that time.
                let changed = self.load(&wanted, epoch).await?;
                loaded.records.extend(changed.records);
                loaded.unreadable = changed.unreadable;
            }
            Ok(loaded)
        })
        .await
    }

    /// Reads the revisions of rows, for which their index is enough. Returns the records that are still
    /// current, and the ids of those that are not.
    async fn compare(
        &mut self,
        mut held: HashMap<Uuid, Record>,
        epoch: &Epoch,
    ) -> Result<(Loaded, Vec<Uuid>), StoreError> {
        let ids: Vec<_> = held.keys().copied().collect();
        let rows = sqlx::query!(
            r#"SELECT always.as_of AS "as_of!: Time", always.same_epoch AS "same_epoch!", t.id AS "id?", t.revision AS "revision?"
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
        Ok((Loaded { as_of, records, unreadable: Vec::new() }, changed))
    }

    /// Reads whole rows and, even when there are none, the database's time and whether its epoch is the
    /// same.
    async fn load(&mut self, ids: &[Uuid], epoch: &Epoch) -> Result<Loaded, StoreError> {
        let rows = token_query!(
            query,
            r#"SELECT always.as_of AS "as_of!: Time", always.same_epoch AS "same_epoch!",
                   t.mac AS "mac!: Lenient<Vec<u8>>", t.mac_key_id AS "mac_key_id!: Lenient<Vec<u8>>",
                   t.revision AS "revision!: Lenient<Option<i64>>","#,
            "NULL::timestamptz, NULL::jsonb, NULL::timestamptz",
            [r#"AS "token?: TokenRow"
               FROM (SELECT now() AS as_of, (SELECT epoch FROM server_epoch) IS NOT DISTINCT FROM $2 AS same_epoch)
                   AS always
                   LEFT JOIN tokens t ON t.id = ANY($1)"#],
            ids,
            epoch.as_str()
        )
        .fetch_all(self.0.single())
        .await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let as_of = followed(first.same_epoch, first.as_of)?;
        let mut loaded = Loaded { as_of, records: Vec::with_capacity(rows.len()), unreadable: Vec::new() };
        for row in rows {
            let Some(token) = row.token else { continue };
            let id = token.id;
            // A row that cannot be read is a failure only for the callers that ask for it.
            match record(token, row.mac_key_id, row.mac, row.revision) {
                Ok(record) => loaded.records.push((rows::token_id(id), record)),
                Err(column) => loaded.unreadable.push((rows::token_id(id), unreadable_token(id, column))),
            }
        }
        Ok(loaded)
    }
}

/// Returns the database's time, if its server is the one whose changes are followed.
fn followed(same_epoch: bool, as_of: Time) -> Result<OffsetDateTime, StoreError> {
    if same_epoch { as_of.clock() } else { Err(StoreError::OtherServer) }
}

/// Returns the 62 random bits of a revision: two changes of a token look equal once in 2^62 times.
const fn bits(revision: i64) -> Option<NonZeroU64> {
    NonZeroU64::new(revision.cast_unsigned())
}

/// Converts a row to a record; the error is the name of the column that cannot be read.
fn record(
    token: TokenRow,
    mac_key_id: Lenient<Vec<u8>>,
    mac: Lenient<Vec<u8>>,
    revision: Lenient<Option<i64>>,
) -> Result<Record, &'static str> {
    let (mac, revision) = (rows::mac(mac_key_id, mac)?, revision.read("revision")?);
    Ok(Record::of_row(&rows::token(token)?, mac, revision.and_then(bits)))
}

impl Store {
    /// Reads both verifiers of a token; `None` when there is no such token.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn load_verifiers(&self, id: TokenId) -> Result<Option<(Mac, DurableHash)>, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"SELECT mac AS "mac!: Lenient<Vec<u8>>", mac_key_id AS "mac_key_id!: Lenient<Vec<u8>>",
                       durable_hash AS "durable_hash!: Lenient<Vec<u8>>"
                   FROM tokens WHERE id = $1"#,
                rows::uuid(id)
            )
            .fetch_optional(self.single()?)
            .await?;
            row.map(|row| {
                let unreadable = |column| unreadable_token(rows::uuid(id), column);
                let mac = rows::mac(row.mac_key_id, row.mac).map_err(unreadable)?;
                let hash = row.durable_hash.read("durable_hash").map_err(unreadable)?;
                Ok((mac, DurableHash::from_bytes(hash)))
            })
            .transpose()
        })
        .await
    }
}
