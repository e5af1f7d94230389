//! Seals the audit log. An event may be sealed once no transaction is running that could still commit a lower
//! number: each of tokend's gets its transaction id before it takes a number. Rows that no key of the ring
//! made are ignored: someone who can insert them cannot prevent sealing. Called by the job that seals.

use std::time::Duration;

use time::OffsetDateTime;

use super::columns::{LAST_MOMENT, Time};
use super::locks::clock;
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::secret::{KeyId, Keyring, Mac, SealHeader, SealedEvents};

/// The maximum number of events per seal.
const MAX_EVENTS: i64 = 5_000;

/// How many seals one statement reads.
const SEALS_PER_PAGE: i64 = 500;

/// The advisory lock of sealing. The value is arbitrary.
const SEAL_LOCK: i64 = 0x746f_6b65_6e64_0002;

/// The last event that may be sealed once every transaction below `xmax` has ended.
#[derive(Debug, Clone)]
pub struct Candidate {
    last_id: i64,
    xmax: String,
}

/// A seal that a key of the ring made.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// Its header.
    pub header: SealHeader,
    /// The seal.
    pub seal: [u8; 32],
}

/// The result of one sealing pass.
#[derive(Debug, Clone)]
pub struct SealPass {
    /// The newest genuine seal.
    pub newest: Option<Sealed>,
    /// Whether this pass made it.
    pub made: bool,
    /// What the next pass may seal.
    pub candidate: Option<Candidate>,
    /// The age of the oldest event without a seal, by the accepted clock; `None`: all are sealed.
    pub oldest_unsealed: Option<Duration>,
}

/// A row of `audit_seals`.
pub(super) struct SealRow {
    pub(super) sequence: i64,
    pub(super) first_id: i64,
    pub(super) last_id: i64,
    pub(super) events: i64,
    pub(super) events_hash: Vec<u8>,
    pub(super) previous: Vec<u8>,
    pub(super) seal_time: Time,
    pub(super) key_id: Vec<u8>,
    pub(super) seal: Vec<u8>,
    pub(super) purge_time: Option<Time>,
    pub(super) purge_key_id: Option<Vec<u8>>,
    pub(super) purge_mark: Option<Vec<u8>>,
}

/// Builds the query for [`SealRow`]s whose text ends with the given clauses.
macro_rules! select_seals {
    ($clauses:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            SealRow,
            r#"SELECT sequence, first_id, last_id, events, events_hash, previous, seal_time AS "seal_time: _", key_id, seal,
                   purge_time AS "purge_time: _", purge_key_id, purge_mark
               FROM audit_seals "#
                + $clauses
            $(, $argument)*
        )
    };
}
pub(super) use select_seals;

impl SealRow {
    /// Returns the row's content, and the key that it names as its maker.
    pub(super) fn read(&self) -> Result<(Sealed, KeyId), StoreError> {
        let header = SealHeader {
            sequence: self.sequence,
            first_id: self.first_id,
            last_id: self.last_id,
            events: self.events,
            events_hash: array("events_hash", &self.events_hash)?,
            previous: array("previous", &self.previous)?,
            seal_time: moment("audit_seals", "seal_time", self.seal_time)?,
        };
        let key_id = KeyId::from_bytes(array("key_id", &self.key_id)?);
        Ok((Sealed { header, seal: array("seal", &self.seal)? }, key_id))
    }

    /// Returns the seal if a key of the ring made it.
    fn genuine(&self, keyring: &Keyring) -> Result<Option<Sealed>, StoreError> {
        let (sealed, key_id) = self.read()?;
        let mac = Mac { key_id, tag: sealed.seal };
        Ok((keyring.check_seal(&sealed.header.covered(), &mac) == Some(true)).then_some(sealed))
    }
}

/// Converts a time, if it is valid.
pub(super) fn moment(
    table: &'static str,
    column: &'static str,
    time: Time,
) -> Result<OffsetDateTime, StoreError> {
    time.moment().ok_or(StoreError::Corrupt { table, column })
}

/// Converts a column of exactly `N` bytes.
pub(super) fn array<const N: usize>(column: &'static str, bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt { table: "audit_seals", column })
}

impl Store {
    /// Finds the newest genuine seal, even if other rows follow it; `None`: there is none.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn newest_seal(&self, keyring: &Keyring) -> Result<Option<Sealed>, StoreError> {
        let (mut sequence, mut seal) = (i64::MAX, vec![u8::MAX; 33]);
        loop {
            // Each page has its own deadline: there may be any number of seals made without a key.
            let page = self.within(async {
                let page = select_seals!(
                    "WHERE (sequence, seal) < ($1, $2) ORDER BY sequence DESC, seal DESC LIMIT $3",
                    sequence,
                    seal,
                    SEALS_PER_PAGE
                );
                Ok(page.fetch_all(self.single()?).await?)
            });
            let page = page.await?;
            for row in &page {
                if let Some(sealed) = row.genuine(keyring)? {
                    return Ok(Some(sealed));
                }
            }
            let Some(last) = page.last() else { return Ok(None) };
            (sequence, seal) = (last.sequence, last.seal.clone());
        }
    }

    /// Seals a batch of the events up to `candidate` and after `newest`, unless another replica is
    /// sealing.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn seal_events(
        &self,
        newest: Option<Sealed>,
        candidate: Option<&Candidate>,
        keyring: &Keyring,
    ) -> Result<SealPass, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let taken = transaction.try_lock(SEAL_LOCK).await?;
            let newest = follow(&mut transaction, newest, keyring).await?;
            // Events that other replicas have sealed meanwhile are no candidates any more.
            let covered = newest.map_or(0, |newest| newest.header.last_id);
            let candidate = candidate.filter(|candidate| candidate.last_id > covered);
            let (sealed, waiting) = match candidate {
                Some(candidate) if taken && settled(&mut transaction, candidate).await? => {
                    (seal(&mut transaction, newest, candidate.last_id, keyring).await?, None)
                }
                candidate => (None, candidate.cloned()),
            };
            let made = sealed.is_some();
            let newest = sealed.or(newest);
            let (next, oldest_unsealed) = unsealed(&mut transaction, newest).await?;
            transaction.commit_unacknowledged().await?;
            Ok(SealPass { newest, made, candidate: waiting.or(next), oldest_unsealed })
        })
        .await
    }
}

/// Follows the chain from a seal to the newest genuine one after it.
async fn follow(
    transaction: &mut Transaction,
    mut newest: Option<Sealed>,
    keyring: &Keyring,
) -> Result<Option<Sealed>, StoreError> {
    loop {
        let rows = select_seals!(
            "WHERE sequence = $1 AND previous = $2 ORDER BY seal LIMIT $3",
            newest.map_or(1, |newest| newest.header.sequence + 1),
            &newest.map_or([0; 32], |newest| newest.seal),
            SEALS_PER_PAGE
        )
        .fetch_all(&mut *transaction)
        .await?;
        // If there are so many forged seals that a genuine one is not among these rows, its events are
        // sealed twice, which does no harm.
        let mut genuine = None;
        for row in &rows {
            genuine = genuine.or(row.genuine(keyring)?);
        }
        match genuine {
            Some(sealed) => newest = Some(sealed),
            None => return Ok(newest),
        }
    }
}

/// Returns what the next pass may seal, and the age of the oldest event that is not sealed.
async fn unsealed(
    transaction: &mut Transaction,
    newest: Option<Sealed>,
) -> Result<(Option<Candidate>, Option<Duration>), StoreError> {
    let now = clock(transaction).await?;
    // No number above those of the sequence: a forged event must not make later events count as sealed.
    let row = sqlx::query!(
        r#"SELECT (SELECT max(id) FROM token_events WHERE id > $1
                   AND id <= (SELECT last_value FROM token_events_id_seq)) AS last_id,
               pg_snapshot_xmax(pg_current_snapshot())::text AS "xmax!",
               (SELECT CASE WHEN event_time BETWEEN '1970-01-01Z' AND '9999-12-31Z'
                    THEN (extract(epoch FROM $2::timestamptz - event_time) * 1000)::bigint ELSE 0 END FROM token_events
                WHERE id > $1 ORDER BY id LIMIT 1) AS oldest_millis"#,
        newest.map_or(0, |newest| newest.header.last_id),
        now
    )
    .fetch_one(transaction)
    .await?;
    let candidate = row.last_id.map(|last_id| Candidate { last_id, xmax: row.xmax });
    let oldest = row.oldest_millis.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs()));
    Ok((candidate, oldest))
}

async fn settled(transaction: &mut Transaction, candidate: &Candidate) -> Result<bool, StoreError> {
    let row = sqlx::query!(
        r#"SELECT pg_snapshot_xmin(pg_current_snapshot()) >= $1::text::xid8 AS "settled!""#,
        candidate.xmax
    )
    .fetch_one(transaction)
    .await?;
    Ok(row.settled)
}

async fn seal(
    transaction: &mut Transaction,
    newest: Option<Sealed>,
    until: i64,
    keyring: &Keyring,
) -> Result<Option<Sealed>, StoreError> {
    let first_id = newest.map_or(1, |newest| newest.header.last_id + 1);
    let events = read_events(transaction, first_id, until, MAX_EVENTS).await?;
    // Events beyond the batch size start the next batch.
    let full = events.hashed.events() == MAX_EVENTS;
    let Some(last_id) = events.last_id.map(|read| if full { read } else { until }) else { return Ok(None) };
    let header = SealHeader {
        sequence: newest.map_or(1, |newest| newest.header.sequence + 1),
        first_id,
        last_id,
        events: events.hashed.events(),
        events_hash: events.hashed.hash(),
        previous: newest.map_or([0; 32], |newest| newest.seal),
        seal_time: clock(transaction).await?,
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
    .execute(transaction)
    .await?;
    Ok(Some(Sealed { header, seal: tag }))
}

/// The events of a range.
pub(super) struct EventRange {
    /// Their hash, as a seal covers them.
    pub(super) hashed: SealedEvents,
    /// The number of the last event.
    pub(super) last_id: Option<i64>,
    /// The time of the newest event; [`LAST_MOMENT`] if one is unreadable.
    pub(super) newest: Option<OffsetDateTime>,
}

/// Reads the events of a range, from its start. Column values are covered as they are, even those that
/// tokend never writes: one such event must not prevent sealing those after it.
pub(super) async fn read_events(
    transaction: &mut Transaction,
    first_id: i64,
    last_id: i64,
    limit: i64,
) -> Result<EventRange, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT id, event_time AS "event_time?: Time", kind AS "kind?", token_id AS "token_id?",
               organization_id AS "organization_id?", user_id AS "user_id?", actor AS "actor?", acting_user, trace_id,
               changes::text AS "changes?", attribution, owner_kind
           FROM token_events WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3"#,
        first_id,
        last_id,
        limit
    )
    .fetch_all(transaction)
    .await?;
    let mut range = EventRange { hashed: SealedEvents::default(), last_id: None, newest: None };
    for row in &rows {
        let nanos = row.event_time.map(|time| time.nanos().to_be_bytes());
        // Without them, the bytes are those of builds that did not know them. With them, what follows begins with 1 or
        // with nine zeros, and the number of another event, being positive and below 2^56, with neither.
        let attribution = row.attribution.as_deref().map(str::as_bytes);
        let owner_kind = row.owner_kind.as_deref().map(str::as_bytes);
        let later: &[_] = match (attribution, owner_kind) {
            (None, None) => &[],
            (attribution, None) => &[attribution],
            (attribution, owner_kind) => &[attribution, owner_kind],
        };
        let columns = [
            nanos.as_ref().map(<[u8; 16]>::as_slice),
            row.kind.as_deref().map(str::as_bytes),
            row.token_id.as_ref().map(|id| id.as_bytes().as_slice()),
            row.organization_id.as_deref().map(str::as_bytes),
            row.user_id.as_deref().map(str::as_bytes),
            row.actor.as_deref().map(str::as_bytes),
            row.acting_user.as_deref().map(str::as_bytes),
            row.trace_id.as_deref(),
            row.changes.as_deref().map(str::as_bytes),
        ];
        let columns: Vec<_> = columns.iter().chain(later).copied().collect();
        range.hashed.add(row.id, &columns);
        range.last_id = Some(row.id);
        // An event of unknown age never counts as old.
        range.newest = range.newest.max(row.event_time.and_then(Time::moment).or(Some(LAST_MOMENT)));
    }
    Ok(range)
}
