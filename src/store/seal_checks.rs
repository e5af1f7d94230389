//! Checking every seal of the audit log against its events, and deleting events that are old, for which the seal that
//! covers them is checked first. Called by `tokend audit`.

use time::OffsetDateTime;

use super::columns::Time;
use super::locks::clock;
use super::pooling::Transaction;
use super::seals::{SealRow, Sealed, array, read_events, select_seals};
use super::{Store, StoreError};
use crate::secret::{KeyId, Keyring, Mac};

/// A stored seal, checked against what the log holds.
#[derive(Debug)]
pub struct CheckedSeal {
    /// What it says of itself.
    pub sealed: Sealed,
    /// What was found.
    pub finding: Finding,
    /// When the newest of its events happened, where they are genuine.
    pub newest_event: Option<OffsetDateTime>,
}

/// What comparing a seal with the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Its events are as they were.
    Genuine,
    /// Its events were deleted for their age, as a key of the ring says.
    Purged,
    /// Its events are others than those that it was made over.
    Altered,
    /// No key of the ring has made it as it is: it was put in or altered.
    Forged,
    /// It is marked as purged, and no key of the ring has done that.
    PurgeForged,
    /// It is not behind one that is there: one was removed.
    OutOfChain,
    /// The key that it, or its mark as purged, was made with is not in the ring.
    UnknownKey,
}

impl Finding {
    /// Tells whether all is as it should be.
    #[must_use]
    pub const fn is_fine(self) -> bool {
        matches!(self, Self::Genuine | Self::Purged)
    }
}

/// Goes through the seals, from the first on.
#[derive(Debug, Default)]
pub struct SealWalk {
    position: Option<(i64, [u8; 32])>,
    /// Those that a key made, with the number of the last one and with the number before. As a rule one each: two
    /// where two replicas did not know each other's keys.
    now: (i64, Vec<Sealed>),
    before: (i64, Vec<Sealed>),
    last_id: i64,
}

impl SealWalk {
    /// Tells whether a seal is behind a genuine one that is there, or the first.
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
    /// Checks the next seal against the log; `None` behind the last.
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

    /// Counts the events that none of the genuine seals of a walk covers.
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

    /// Deletes the events of a seal that was found genuine, and marks it; returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; Postgres refuses events that are younger than 30 days.
    pub async fn purge_events(&self, sealed: &Sealed, keyring: &Keyring) -> Result<i64, StoreError> {
        self.within(async {
            let mut transaction = self.begin().await?;
            let now = clock(&mut transaction).await?;
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
            transaction.commit().await?;
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
            // Where events were deleted, there are none.
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
