//! Reading what Verify judges: token records with their MACs, and the durable verifier for the rare case
//! that a MAC's key is gone. Called by the engine alone.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;

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

impl Line {
    /// Reads the records with these ids in one statement.
    ///
    /// # Errors
    /// [`StoreError::OtherServer`] when another life of a server than `epoch` answered; the rest as for every
    /// call of the store, also when no answer came by `deadline`.
    pub async fn load_records(
        &mut self,
        ids: &[TokenId],
        epoch: &Epoch,
        deadline: Duration,
    ) -> Result<Loaded, StoreError> {
        let ids: Vec<_> = ids.iter().copied().map(rows::uuid).collect();
        within(deadline, async {
            let found = sqlx::query!(
                r#"SELECT always.as_of AS "as_of!", always.same_epoch AS "same_epoch!",
                       t.id AS "id?", organization_id AS "organization_id?", user_id AS "user_id?",
                       name AS "name?", scopes AS "scopes?",
                       labels AS "labels?: Json<BTreeMap<String, String>>",
                       allowed_cidrs::text[] AS "allowed_cidrs?",
                       create_time AS "create_time?", created_by AS "created_by?",
                       expire_time AS "expire_time?", revoke_time AS "revoke_time?",
                       revoke_reason AS "revoke_reason?",
                       rotated_from AS "rotated_from?", disable_time AS "disable_time?",
                       mac AS "mac?", mac_key_id AS "mac_key_id?"
                   FROM (SELECT now() AS as_of,
                           (SELECT epoch FROM server_epoch) IS NOT DISTINCT FROM $2 AS same_epoch)
                       AS always
                       LEFT JOIN tokens t ON t.id = ANY($1)"#,
                &ids,
                epoch.as_str()
            )
            .fetch_all(self.0.single())
            .await?;
            let first = found.first().ok_or(sqlx::Error::RowNotFound)?;
            if !first.same_epoch {
                return Err(StoreError::OtherServer);
            }
            let as_of = first.as_of;
            let mut records = Vec::with_capacity(found.len());
            for row in found {
                let Some(id) = row.id else { continue };
                let absent = |column| StoreError::Corrupt { table: "tokens", column };
                let token = TokenRow {
                    id,
                    organization_id: row.organization_id.ok_or(absent("organization_id"))?,
                    user_id: row.user_id.ok_or(absent("user_id"))?,
                    name: row.name.ok_or(absent("name"))?,
                    scopes: row.scopes.ok_or(absent("scopes"))?,
                    labels: row.labels.ok_or(absent("labels"))?,
                    allowed_cidrs: row.allowed_cidrs.ok_or(absent("allowed_cidrs"))?,
                    create_time: row.create_time.ok_or(absent("create_time"))?,
                    created_by: row.created_by.ok_or(absent("created_by"))?,
                    expire_time: row.expire_time,
                    revoke_time: row.revoke_time,
                    revoke_reason: row.revoke_reason,
                    rotated_from: row.rotated_from,
                    disable_time: row.disable_time,
                    last_use_time: None,
                    read_time: as_of,
                };
                let mac =
                    rows::mac(&row.mac_key_id.ok_or(absent("mac_key_id"))?, &row.mac.ok_or(absent("mac"))?)?;
                records.push((rows::token_id(id), Record::new(&token.try_into()?, mac)));
            }
            Ok(Loaded { as_of, records })
        })
        .await
    }
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
