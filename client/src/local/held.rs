//! The cached records, bounded in bytes and in age, the least useful evicted first, and the rule for adding
//! one. Contains keyed hashes and metadata, never a secret, and never the fact that a token does not exist.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use time::OffsetDateTime;
use tokend_core::boot_instant::BootInstant;
use tokend_core::domain::Record;
use tokend_core::fill_guard::{FillGuard, Lease};
use tokend_core::secret::{KeyId, MacKey, Secret, TokenId};
use zeroize::Zeroizing;

use super::recent_changes::{Filled, RecentChanges};
use crate::ambient;
use crate::question::{Answer, VerifiedToken};

/// The bytes of a record in addition to its own: the token as it is returned, with a few texts, and
/// its part of the table.
const BESIDE: u64 = 512;

/// A cache entry: the record, the token as guards pass it on, and when to ask for it again, by the
/// boot clock in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) token: VerifiedToken,
    ask_again: i64,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<TokenId, Kept> for Weight {
    fn weight(&self, _: &TokenId, kept: &Kept) -> u64 {
        // The texts are stored twice.
        2 * kept.record.bytes() as u64 + BESIDE
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct Held {
    records: Cache<TokenId, Kept, Weight>,
    gate: FillGuard<TokenId>,
    told: Mutex<RecentChanges>,
    /// Random for this process: the records are of no use elsewhere.
    key: MacKey,
    max_age: i64,
}

/// A question in progress. An abandoned one fills nothing.
pub(super) struct Asking<'a> {
    held: &'a Held,
    ticket: Lease,
}

impl Held {
    pub(super) fn new(bytes: u64, max_age: Duration) -> Self {
        let key = Zeroizing::new(ambient::random::<[u8; 32]>());
        let expected = usize::try_from(bytes / (2 * BESIDE)).unwrap_or(usize::MAX);
        Self {
            records: Cache::with_weighter(expected, bytes, Weight),
            gate: FillGuard::new(),
            told: Mutex::default(),
            key: MacKey::new(KeyId::from_bytes([0; 8]), &key),
            max_age: i64::try_from(max_age.as_nanos()).unwrap_or(i64::MAX / 2),
        }
    }

    /// Looks a record up; one that is due to be asked for again is not found.
    pub(super) fn get(&self, id: TokenId, now: BootInstant) -> Option<Kept> {
        self.records.get(&id).filter(|kept| now.boot < kept.ask_again)
    }

    /// Returns whether a secret is the one that the record was stored for; compares in constant time.
    pub(super) fn proves(&self, secret: &Secret, record: &Record) -> bool {
        self.key.check(secret, record.mac())
    }

    /// Registers a question that is about to be sent.
    pub(super) fn begin(&self) -> Asking<'_> {
        Asking { held: self, ticket: self.gate.begin() }
    }

    /// Removes the tokens that a message reports as changed, also from questions in progress.
    /// `last`: the message ends its batch.
    pub(super) fn forget(&self, ids: &[TokenId], as_of: OffsetDateTime, last: bool) {
        // First the changes that answers are compared with, then questions in progress, then records.
        self.told().note(ids, as_of, last);
        if ids.is_empty() {
            return;
        }
        self.gate.invalidate(ids);
        for id in ids {
            self.records.remove(id);
        }
    }

    /// Records that the watch continues over another connection.
    pub(super) fn connected(&self) {
        self.told().connected();
    }

    /// Removes everything: changes may have been missed.
    pub(super) fn clear(&self) {
        *self.told() = RecentChanges::default();
        self.gate.invalidate_all();
        self.records.clear();
    }

    /// Returns the number of records, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.records.len() as u64, self.records.weight())
    }

    fn told(&self) -> MutexGuard<'_, RecentChanges> {
        // A panic inside leaves nothing inconsistent that matters.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// Ends the question with its answer, and caches that if it includes every change reported so far.
    pub(super) fn end(self, secret: &Secret, answer: &Answer, now: BootInstant) -> Filled {
        let (Some(token), Some(as_of)) = (&answer.token, answer.as_of) else { return Filled::No };
        let id = secret.id();
        if token.id != id {
            return Filled::No;
        }
        let held = self.held;
        let found = (Record::new(token, held.key.mac(secret)), token.clone());
        // The result if the fill guard rejects it: the change came while the question was in progress.
        let mut filled = Filled::Outdated;
        held.gate.fill(&self.ticket, [(id, found)], |id, (record, token)| {
            filled = held.told().admits(id, as_of);
            if filled == Filled::Held {
                // Spread over a quarter of the age by the id's random bits, as on the server.
                let jitter = held.max_age / 4 / 256 * i64::from(id.to_bytes()[15]);
                let ask_again = now.boot.saturating_add(held.max_age - jitter);
                held.records.insert(id, Kept { record, token, ask_again });
            }
        });
        filled
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.held.gate.abandon(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;
    use tokend_core::domain::Verdict;
    use tokend_core::fixtures;

    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
    const NOW: BootInstant = BootInstant { boot: 0, wall: 0 };

    fn secret() -> Secret {
        // The id of the fixtures' token.
        fixtures::secret([7; 16], [9; 32])
    }

    fn answer(as_of: OffsetDateTime) -> Answer {
        let token = Some(VerifiedToken::new(fixtures::token(&[])));
        Answer { verdict: Verdict::Valid, token, missing_scopes: Vec::new(), as_of: Some(as_of) }
    }

    fn seconds(seconds: i64) -> OffsetDateTime {
        NOON + time::Duration::seconds(seconds)
    }

    fn begin(held: &Held) {
        for second in -1..=1 {
            held.forget(&[], seconds(second), true);
        }
    }

    /// A watch that began long enough ago.
    fn watching() -> Held {
        let held = Held::new(1 << 20, Duration::from_mins(10));
        begin(&held);
        held
    }

    fn is_held(held: &Held) -> bool {
        held.get(secret().id(), NOW).is_some()
    }

    #[test]
    fn what_was_asked_and_has_not_changed_is_held_and_proven_by_its_secret_alone() {
        let held = watching();
        assert_eq!(held.begin().end(&secret(), &answer(seconds(10)), NOW), Filled::Held);
        let kept = held.get(secret().id(), NOW).unwrap();
        assert!(held.proves(&secret(), &kept.record));
        assert!(!held.proves(&fixtures::secret([7; 16], [8; 32]), &kept.record));
        assert!(!Held::new(1 << 20, Duration::ZERO).proves(&secret(), &kept.record), "another process's key");
        assert!(!format!("{held:?}").contains("tag"));
    }

    #[test]
    fn a_record_is_asked_for_again_when_it_is_old() {
        let held = watching();
        held.begin().end(&secret(), &answer(seconds(10)), NOW);
        let minutes = |minutes: i64| BootInstant { boot: minutes * 60_000_000_000, wall: 0 };
        assert!(held.get(secret().id(), minutes(7)).is_some());
        assert!(held.get(secret().id(), minutes(10)).is_none());
    }

    #[test]
    fn nothing_enters_before_the_watch_has_begun_and_after_it_has_begun_anew() {
        let held = Held::new(1 << 20, Duration::from_mins(10));
        assert_eq!(held.begin().end(&secret(), &answer(seconds(10)), NOW), Filled::No);
        let held = watching();
        let asking = held.begin();
        held.clear();
        assert_eq!(asking.end(&secret(), &answer(seconds(10)), NOW), Filled::Outdated);
        assert!(!is_held(&held));
    }

    // Without the fill guard this record would be cached: its time, perhaps from another clock,
    // makes it look new.
    #[test]
    fn what_changes_while_it_is_asked_for_is_not_held_whatever_time_its_answer_tells() {
        let held = watching();
        let asking = held.begin();
        held.forget(&[secret().id()], seconds(20), true);
        held.forget(&[], seconds(21), true);
        assert_eq!(asking.end(&secret(), &answer(seconds(1_000)), NOW), Filled::Outdated);
        assert!(!is_held(&held));
        assert_eq!(held.begin().end(&secret(), &answer(seconds(1_000)), NOW), Filled::Held);
    }

    // Without the recent changes this record would be cached: nothing changed since it was asked
    // for, but the replica that answered does not know an earlier change yet.
    #[test]
    fn an_answer_from_before_a_change_that_was_told_already_is_not_held() {
        let held = watching();
        held.forget(&[secret().id()], seconds(20), true);
        held.forget(&[], seconds(21), true);
        assert_eq!(held.begin().end(&secret(), &answer(seconds(20)), NOW), Filled::Outdated);
        assert!(!is_held(&held));
        assert_eq!(held.begin().end(&secret(), &answer(seconds(21)), NOW), Filled::Held);
    }

    #[test]
    fn what_is_held_goes_when_it_changes_or_when_changes_may_have_been_missed() {
        let held = watching();
        held.begin().end(&secret(), &answer(seconds(10)), NOW);
        held.forget(&[TokenId::from_bytes([1; 16])], seconds(20), true);
        assert!(is_held(&held));
        held.forget(&[secret().id()], seconds(20), true);
        assert!(!is_held(&held));
        held.forget(&[], seconds(21), true);
        held.begin().end(&secret(), &answer(seconds(30)), NOW);
        held.clear();
        assert!(!is_held(&held) && held.size().0 == 0);
    }

    #[test]
    fn the_bytes_are_bounded() {
        let held = Held::new(64 << 10, Duration::from_mins(10));
        begin(&held);
        for number in 0_u32..10_000 {
            let mut token = fixtures::token(&["a:b"]);
            let mut id = [7; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            token.id = TokenId::from_bytes(id);
            let answer = Answer { token: Some(VerifiedToken::new(token)), ..answer(seconds(10)) };
            held.begin().end(&fixtures::secret(id, [9; 32]), &answer, NOW);
        }
        let (count, bytes) = held.size();
        assert!(count > 10 && bytes <= 64 << 10, "{count} {bytes}");
    }
}
