//! Checks every seal of the audit log against its events, and deletes old events after checking the
//! seal that covers them. Called by `tokend audit`.

use time::OffsetDateTime;

use super::clock::earlier;
use super::columns::Time;
use super::locks::clock;
use super::seals::{SealRow, Sealed, array, read_events, select_seals};
use super::transaction::Transaction;
use super::{Store, StoreError};
use crate::secret::{KeyId, Keyring, Mac};

/// A stored seal, compared with the log.
#[derive(Debug)]
pub struct CheckedSeal {
    /// The seal's content.
    pub sealed: Sealed,
    /// The result of the comparison.
    pub finding: Finding,
    /// The time of its newest event, if its events are genuine.
    pub newest_event: Option<OffsetDateTime>,
}

/// The result of comparing a seal with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Its events are unchanged.
    Genuine,
    /// Its events were purged because of their age, confirmed by a key of the ring.
    Purged,
    /// Its events differ from those that it covered.
    Altered,
    /// No key of the ring made it with this content: it was inserted or altered.
    Forged,
    /// It is marked as purged, but no key of the ring made that mark.
    PurgeForged,
    /// Its predecessor is not in the log: one was removed.
    OutOfChain,
    /// The key of the seal, or of its purge mark, is not in the ring.
    UnknownKey,
}

impl Finding {
    /// Returns whether the seal is as expected.
    #[must_use]
    pub const fn is_fine(self) -> bool {
        matches!(self, Self::Genuine | Self::Purged)
    }
}

/// Walks through the seals, from the first on.
#[derive(Debug, Default)]
pub struct SealWalk {
    position: Option<(i64, [u8; 32])>,
    /// The genuine seals with the current sequence number, and those with the number before. Usually
    /// one each: two if two replicas did not know each other's keys.
    now: (i64, Vec<Sealed>),
    before: (i64, Vec<Sealed>),
    last_id: i64,
}

impl SealWalk {
    /// Returns whether a seal follows an existing genuine one, or is the first.
    fn follows(&self, sealed: &Sealed) -> bool {
        let header = &sealed.header;
        if header.sequence == 1 {
            return header.previous == [0; 32] && header.first_id == 1;
        }
        self.before.0 == header.sequence - 1
            && self
                .before
                .1
                .iter()
                .any(|before| before.seal == header.previous && before.header.last_id + 1 == header.first_id)
    }

    fn reach(&mut self, sealed: &Sealed) {
        self.position = Some((sealed.header.sequence, sealed.seal));
        if self.now.0 != sealed.header.sequence {
            self.before = std::mem::replace(&mut self.now, (sealed.header.sequence, Vec::new()));
        }
    }

    fn keep(&mut self, sealed: Sealed) {
        self.last_id = self.last_id.max(sealed.header.last_id);
        self.now.1.push(sealed);
    }
}

impl Store {
    /// Checks the next seal against the log; `None` after the last one.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn check_seal(
        &self,
        walk: &mut SealWalk,
        keyring: &Keyring,
    ) -> Result<Option<CheckedSeal>, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let (sequence, seal) = walk.position.map_or((0, Vec::new()), |(of, seal)| (of, seal.to_vec()));
            let row = select_seals!(
                "WHERE (sequence, seal) > ($1, $2) ORDER BY sequence, seal LIMIT 1",
                sequence,
                seal
            )
            .fetch_optional(&mut transaction)
            .await?;
            let Some(row) = row else { return Ok(None) };
            let (sealed, key_id) = row.read()?;
            walk.reach(&sealed);
            let mac = Mac { key_id, tag: sealed.seal };
            let (finding, newest_event) = match keyring.check_seal(&sealed.header.covered(), &mac) {
                None => (Finding::UnknownKey, None),
                Some(false) => (Finding::Forged, None),
                Some(true) => {
                    let follows = walk.follows(&sealed);
                    walk.keep(sealed);
                    if follows {
                        compare(&mut transaction, &row, &sealed, keyring).await?
                    } else {
                        (Finding::OutOfChain, None)
                    }
                }
            };
            Ok(Some(CheckedSeal { sealed, finding, newest_event }))
        })
        .await
    }

    /// Counts the events that no genuine seal of a walk covers.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn count_unsealed(&self, walk: &SealWalk) -> Result<i64, StoreError> {
        self.within(async {
            let row =
                sqlx::query!(r#"SELECT count(*) AS "events!" FROM token_events WHERE id > $1"#, walk.last_id)
                    .fetch_one(self.single()?)
                    .await?;
            Ok(row.events)
        })
        .await
    }

    /// Deletes the events of a seal that was found genuine, and marks it as purged; returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; Postgres rejects events that are younger than 30 days by either clock.
    pub async fn purge_events(&self, sealed: &Sealed, keyring: &Keyring) -> Result<i64, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            // Postgres checks the age by this time, unless its own is earlier.
            let now = earlier(clock(&mut transaction).await?);
            let Mac { key_id, tag } = keyring.sign_seal(&sealed.header.purge_covered(&sealed.seal, now));
            let row = sqlx::query!(
                r#"SELECT purge_audit($1, $2, $3, $4, $5) AS "purged!""#,
                sealed.header.sequence,
                &sealed.seal,
                now,
                &key_id.to_bytes(),
                &tag
            )
            .fetch_one(&mut transaction)
            .await?;
            transaction.commit_unacknowledged().await?;
            Ok(row.purged)
        })
        .await
    }
}

/// Compares a genuine seal with the log.
async fn compare(
    transaction: &mut Transaction,
    row: &SealRow,
    sealed: &Sealed,
    keyring: &Keyring,
) -> Result<(Finding, Option<OffsetDateTime>), StoreError> {
    let header = &sealed.header;
    if let (Some(time), Some(key_id), Some(mark)) =
        (row.purge_time.and_then(Time::moment), &row.purge_key_id, &row.purge_mark)
    {
        let key_id = KeyId::from_bytes(array("purge_key_id", key_id)?);
        let mark = Mac { key_id, tag: array("purge_mark", mark)? };
        let finding = match keyring.check_seal(&header.purge_covered(&sealed.seal, time), &mark) {
            None => Finding::UnknownKey,
            Some(false) => Finding::PurgeForged,
            // If the events were purged, none may remain.
            Some(true)
                if read_events(transaction, header.first_id, header.last_id, 1).await?.last_id.is_some() =>
            {
                Finding::Altered
            }
            Some(true) => Finding::Purged,
        };
        return Ok((finding, None));
    }
    let events = read_events(transaction, header.first_id, header.last_id, i64::MAX).await?;
    let whole = events.hashed.events() == header.events && events.hashed.hash() == header.events_hash;
    Ok(if whole { (Finding::Genuine, events.newest) } else { (Finding::Altered, None) })
}
