//! Sealing the audit log, and checking the seals. An event may be sealed once no transaction that could still
//! commit a lower number is running: every one of tokend's has its transaction id before it takes a number.
//! Called by the job that seals and by `tokend audit`.

use time::OffsetDateTime;

use super::pooling::Transaction;
use super::{Store, StoreError};
use crate::secret::{KeyId, Keyring, Mac, SealHeader, SealedEvents};

/// How many events one seal covers at most.
const BATCH: i64 = 5_000;

/// The advisory lock of whoever seals. Any constant will do.
const SEAL_LOCK: i64 = 0x746f_6b65_6e64_0002;

/// Up to where events may be sealed once every transaction below `xmax` has ended.
#[derive(Debug, Clone)]
pub struct Candidate {
    last_id: i64,
    xmax: String,
}

/// A seal that was made.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// What it covers.
    pub header: SealHeader,
    /// The seal.
    pub seal: [u8; 32],
}

/// A stored seal, checked against what the log holds.
#[derive(Debug)]
pub struct CheckedSeal {
    /// What it says that it covers.
    pub header: SealHeader,
    /// The seal.
    pub seal: [u8; 32],
    /// What was found.
    pub finding: Finding,
}

/// What comparing a seal with the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Its events are as they were.
    Genuine,
    /// Its events were deleted for their age; nothing can be told of them.
    Purged,
    /// Its events are others than those that it was made over.
    Altered,
    /// It is not behind the one before it: one was removed or put in.
    OutOfChain,
    /// The key that it was made with is not in the ring.
    UnknownKey,
}

impl Store {
    /// Seals a batch of what `candidate` allows, if nobody else is sealing. Returns the seal, and the candidate
    /// for the next time.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn seal_events(
        &self,
        candidate: Option<&Candidate>,
        keyring: &Keyring,
    ) -> Result<(Option<Sealed>, Option<Candidate>), StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let turn = sqlx::query!(r#"SELECT pg_try_advisory_xact_lock($1) AS "taken!""#, SEAL_LOCK)
                .fetch_one(&mut transaction)
                .await?;
            if !turn.taken {
                return Ok((None, None));
            }
            let last = last_seal(&mut transaction).await?;
            let sealed = match candidate {
                Some(candidate) if settled(&mut transaction, candidate).await? => {
                    seal(&mut transaction, last, candidate.last_id, keyring).await?
                }
                _ => None,
            };
            let unsettled = candidate.filter(|_| sealed.is_none()).cloned();
            let next = sqlx::query!(
                r#"SELECT max(id) AS last_id, pg_snapshot_xmax(pg_current_snapshot())::text AS "xmax!"
                   FROM token_events WHERE id > $1"#,
                sealed.map_or(last.map_or(0, |last| last.header.last_id), |sealed| sealed.header.last_id)
            )
            .fetch_one(&mut transaction)
            .await?;
            transaction.commit().await?;
            let next = next.last_id.map(|last_id| Candidate { last_id, xmax: next.xmax });
            Ok((sealed, unsettled.or(next)))
        })
        .await
    }

    /// Checks the stored seal behind `previous` against the log; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn check_seal(
        &self,
        previous: Option<&CheckedSeal>,
        keyring: &Keyring,
    ) -> Result<Option<CheckedSeal>, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let row = sqlx::query!(
                "SELECT sequence, first_id, last_id, events, events_hash, previous, seal_time, key_id, seal, purge_time
                 FROM audit_seals WHERE sequence > $1 ORDER BY sequence LIMIT 1",
                previous.map_or(0, |previous| previous.header.sequence)
            )
            .fetch_optional(&mut transaction)
            .await?;
            let Some(row) = row else { return Ok(None) };
            let bytes = |bytes: Vec<u8>, column| {
                bytes.try_into().map_err(|_| StoreError::Corrupt { table: "audit_seals", column })
            };
            let header = SealHeader {
                sequence: row.sequence,
                first_id: row.first_id,
                last_id: row.last_id,
                events: row.events,
                events_hash: bytes(row.events_hash, "events_hash")?,
                previous: bytes(row.previous, "previous")?,
                seal_time: row.seal_time,
            };
            let seal = bytes(row.seal, "seal")?;
            let key_id = row.key_id.as_slice().try_into();
            let key_id = key_id.map_err(|_| StoreError::Corrupt { table: "audit_seals", column: "key_id" })?;
            let mac = Mac { key_id: KeyId::from_bytes(key_id), tag: seal };
            let finding = match keyring.check_seal(&header.covered(), &mac) {
                _ if !follows(&header, previous) => Finding::OutOfChain,
                None => Finding::UnknownKey,
                Some(false) => Finding::Altered,
                Some(true) if row.purge_time.is_some() => Finding::Purged,
                Some(true) => {
                    let events = read(&mut transaction, header.first_id, header.last_id, i64::MAX).await?.0;
                    let whole = events.events() == header.events && events.hash() == header.events_hash;
                    if whole { Finding::Genuine } else { Finding::Altered }
                }
            };
            Ok(Some(CheckedSeal { header, seal, finding }))
        })
        .await
    }

    /// Counts the events that no seal covers yet.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn count_unsealed(&self) -> Result<i64, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"SELECT count(*) AS "events!" FROM token_events
                   WHERE id > coalesce((SELECT max(last_id) FROM audit_seals), 0)"#
            )
            .fetch_one(self.single()?)
            .await?;
            Ok(row.events)
        })
        .await
    }

    /// Tells how many events [`Self::purge_events`] would delete, called until there is nothing left.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn count_purgeable_events(&self, before: OffsetDateTime) -> Result<i64, StoreError> {
        self.within(async {
            let row = sqlx::query!(
                r#"SELECT coalesce(sum(events), 0)::bigint AS "events!" FROM audit_seals
                   WHERE purge_time IS NULL
                       AND last_id < coalesce((SELECT min(id) FROM token_events WHERE event_time >= $1),
                           9223372036854775807)"#,
                before
            );
            Ok(row.fetch_one(self.single()?).await?.events)
        })
        .await
    }

    /// Deletes events that happened before a moment, in whole sealed batches; returns how many. Keeps the seals.
    ///
    /// # Errors
    /// [`StoreError`]; Postgres refuses a moment less than 30 days ago.
    pub async fn purge_events(&self, before: OffsetDateTime) -> Result<i64, StoreError> {
        self.within(async {
            let row = sqlx::query!(r#"SELECT purge_audit($1) AS "purged!""#, before)
                .fetch_one(self.single()?)
                .await?;
            Ok(row.purged)
        })
        .await
    }
}

/// Tells whether a seal is the one behind another, or the first.
fn follows(header: &SealHeader, previous: Option<&CheckedSeal>) -> bool {
    match previous {
        None => header.sequence == 1 && header.previous == [0; 32],
        Some(previous) => {
            header.sequence == previous.header.sequence + 1
                && header.first_id == previous.header.last_id + 1
                && header.previous == previous.seal
        }
    }
}

async fn last_seal(connection: &mut Transaction) -> Result<Option<Sealed>, StoreError> {
    let row = sqlx::query!(
        "SELECT sequence, first_id, last_id, events, events_hash, previous, seal_time, seal FROM audit_seals
         ORDER BY sequence DESC LIMIT 1"
    )
    .fetch_optional(connection)
    .await?;
    let bytes = |bytes: Vec<u8>, column| {
        bytes.try_into().map_err(|_| StoreError::Corrupt { table: "audit_seals", column })
    };
    row.map(|row| {
        let header = SealHeader {
            sequence: row.sequence,
            first_id: row.first_id,
            last_id: row.last_id,
            events: row.events,
            events_hash: bytes(row.events_hash, "events_hash")?,
            previous: bytes(row.previous, "previous")?,
            seal_time: row.seal_time,
        };
        Ok(Sealed { header, seal: bytes(row.seal, "seal")? })
    })
    .transpose()
}

async fn settled(connection: &mut Transaction, candidate: &Candidate) -> Result<bool, StoreError> {
    let row = sqlx::query!(
        r#"SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8 AS "settled!""#,
        candidate.xmax
    )
    .fetch_one(connection)
    .await?;
    Ok(row.settled)
}

async fn seal(
    connection: &mut Transaction,
    last: Option<Sealed>,
    until: i64,
    keyring: &Keyring,
) -> Result<Option<Sealed>, StoreError> {
    let first_id = last.map_or(1, |last| last.header.last_id + 1);
    let (events, last_read) = read(connection, first_id, until, BATCH).await?;
    // What is left out by the batch's size begins the next one.
    let full = events.events() == BATCH;
    let Some(last_id) = last_read.map(|read| if full { read } else { until }) else { return Ok(None) };
    let now = sqlx::query!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&mut *connection).await?.now;
    let header = SealHeader {
        sequence: last.map_or(1, |last| last.header.sequence + 1),
        first_id,
        last_id,
        events: events.events(),
        events_hash: events.hash(),
        previous: last.map_or([0; 32], |last| last.seal),
        seal_time: now,
    };
    let Mac { key_id, tag } = keyring.sign_seal(&header.covered());
    sqlx::query!(
        "INSERT INTO audit_seals (sequence, first_id, last_id, events, events_hash, previous, seal_time, key_id, seal)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        header.sequence,
        header.first_id,
        header.last_id,
        header.events,
        &header.events_hash,
        &header.previous,
        header.seal_time,
        &key_id.to_bytes(),
        &tag
    )
    .execute(connection)
    .await?;
    Ok(Some(Sealed { header, seal: tag }))
}

/// Reads the events of a range as a seal covers them, and the number of the last one.
async fn read(
    connection: &mut Transaction,
    first_id: i64,
    last_id: i64,
    limit: i64,
) -> Result<(SealedEvents, Option<i64>), StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, (extract(epoch FROM event_time) * 1000000)::bigint AS "micros!", kind, token_id,
               organization_id, user_id, actor, acting_user, trace_id, changes::text AS changes
           FROM token_events WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3"#,
        first_id,
        last_id,
        limit
    )
    .fetch_all(connection)
    .await?;
    let (mut events, mut last) = (SealedEvents::default(), None);
    for row in &rows {
        events.add(
            row.id,
            &[
                Some(&row.micros.to_be_bytes()),
                Some(row.kind.as_bytes()),
                Some(row.token_id.as_bytes()),
                Some(row.organization_id.as_bytes()),
                Some(row.user_id.as_bytes()),
                Some(row.actor.as_bytes()),
                row.acting_user.as_deref().map(str::as_bytes),
                row.trace_id.as_deref(),
                row.changes.as_deref().map(str::as_bytes),
            ],
        );
        last = Some(row.id);
    }
    Ok((events, last))
}
