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
use crate::random;
use crate::verification::{Verification, VerifiedToken};

/// The bytes of a record in addition to its own: the token as it is returned, with a few texts, and
/// its part of the table.
const OVERHEAD: u64 = 512;

/// A cache entry: the record, the token as guards pass it on, and when to ask for it again, by the
/// boot clock in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct CacheEntry {
    pub(super) record: Record,
    pub(super) token: VerifiedToken,
    refresh_at: i64,
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<TokenId, CacheEntry> for Weight {
    fn weight(&self, _: &TokenId, entry: &CacheEntry) -> u64 {
        // The texts are stored twice.
        2 * entry.record.bytes() as u64 + OVERHEAD
    }
}

/// The cache.
#[derive(Debug)]
pub(super) struct RecordCache {
    records: Cache<TokenId, CacheEntry, Weight>,
    fill_guard: FillGuard<TokenId>,
    recent_changes: Mutex<RecentChanges>,
    /// Random for this process: the records are of no use elsewhere.
    key: MacKey,
    max_age: i64,
}

/// A request in progress. An abandoned one fills nothing.
pub(super) struct PendingFill<'a> {
    cache: &'a RecordCache,
    lease: Lease,
}

impl RecordCache {
    pub(super) fn new(bytes: u64, max_age: Duration) -> Self {
        let key = Zeroizing::new(random::random::<[u8; 32]>());
        let expected = usize::try_from(bytes / (2 * OVERHEAD)).unwrap_or(usize::MAX);
        Self {
            records: Cache::with_weighter(expected, bytes, Weight),
            fill_guard: FillGuard::new(),
            recent_changes: Mutex::default(),
            key: MacKey::new(KeyId::from_bytes([0; 8]), &key),
            max_age: i64::try_from(max_age.as_nanos()).unwrap_or(i64::MAX / 2),
        }
    }

    /// Looks a record up; one that is due to be asked for again is not found.
    pub(super) fn get(&self, id: TokenId, now: BootInstant) -> Option<CacheEntry> {
        self.records.get(&id).filter(|entry| now.boot < entry.refresh_at)
    }

    /// Returns whether a secret is the one that the record was stored for; compares in constant time.
    pub(super) fn proves(&self, secret: &Secret, record: &Record) -> bool {
        self.key.check(secret, record.mac())
    }

    /// Registers a request that is about to be sent.
    pub(super) fn begin(&self) -> PendingFill<'_> {
        PendingFill { cache: self, lease: self.fill_guard.begin() }
    }

    /// Removes the tokens that a message reports as changed, also from requests in progress.
    /// `last`: the message ends its batch.
    pub(super) fn forget(&self, ids: &[TokenId], as_of: OffsetDateTime, last: bool) {
        // First the changes that answers are compared with, then requests in progress, then records.
        self.recent_changes().note(ids, as_of, last);
        if ids.is_empty() {
            return;
        }
        self.fill_guard.invalidate(ids);
        for id in ids {
            self.records.remove(id);
        }
    }

    /// Records that the watch continues over another connection.
    pub(super) fn connected(&self) {
        self.recent_changes().connected();
    }

    /// Removes everything: changes may have been missed.
    pub(super) fn clear(&self) {
        *self.recent_changes() = RecentChanges::default();
        self.fill_guard.invalidate_all();
        self.records.clear();
    }

    /// Returns the number of records, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.records.len() as u64, self.records.weight())
    }

    fn recent_changes(&self) -> MutexGuard<'_, RecentChanges> {
        // A panic inside leaves nothing inconsistent that matters.
        self.recent_changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingFill<'_> {
    /// Ends the request with its answer, and caches that if it includes every change reported so far.
    pub(super) fn end(self, secret: &Secret, answer: &Verification, now: BootInstant) -> Filled {
        let (Some(token), Some(as_of)) = (&answer.token, answer.as_of) else { return Filled::No };
        let id = secret.id();
        if token.id != id {
            return Filled::No;
        }
        // Only the server knows what a token with a plan has spent.
        let cacheable = token.plan.is_none() && answer.limits.is_empty();
        let cache = self.cache;
        let found = (Record::new(token, cache.key.mac(secret)), token.clone());
        // The result if the fill guard rejects it: the change came while the request was in progress.
        let mut filled = Filled::Outdated;
        cache.fill_guard.fill(&self.lease, [(id, found)], |id, (record, token)| {
            filled = cache.recent_changes().admits(id, as_of);
            if filled == Filled::Cached && !cacheable {
                filled = Filled::No;
            } else if filled == Filled::Cached {
                // Spread over a quarter of the age by the id's random bits, as on the server.
                let jitter = cache.max_age / 4 / 256 * i64::from(id.to_bytes()[15]);
                let refresh_at = now.boot.saturating_add(cache.max_age - jitter);
                cache.records.insert(id, CacheEntry { record, token, refresh_at });
            }
        });
        filled
    }
}

impl Drop for PendingFill<'_> {
    fn drop(&mut self) {
        self.cache.fill_guard.abandon(&self.lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LimitStatus;
    use crate::proto;
    use time::macros::datetime;
    use tokend_core::domain::Verdict;
    use tokend_core::fixtures;

    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
    const NOW: BootInstant = BootInstant { boot: 0, wall: 0 };

    fn secret() -> Secret {
        // The id of the fixtures' token.
        fixtures::secret([7; 16], [9; 32])
    }

    fn answer(as_of: OffsetDateTime) -> Verification {
        let token = Some(VerifiedToken::new(fixtures::token(&[])));
        Verification {
            verdict: Verdict::Valid,
            token,
            missing_scopes: Vec::new(),
            as_of: Some(as_of),
            limits: Vec::new(),
            retry_after: None,
        }
    }

    fn seconds(seconds: i64) -> OffsetDateTime {
        NOON + time::Duration::seconds(seconds)
    }

    fn begin(cache: &RecordCache) {
        for second in -1..=1 {
            cache.forget(&[], seconds(second), true);
        }
    }

    /// A watch that began long enough ago.
    fn watching() -> RecordCache {
        let cache = RecordCache::new(1 << 20, Duration::from_mins(10));
        begin(&cache);
        cache
    }

    fn is_cached(cache: &RecordCache) -> bool {
        cache.get(secret().id(), NOW).is_some()
    }

    #[test]
    fn an_unchanged_record_is_cached_and_only_its_secret_proves_it() {
        let cache = watching();
        assert_eq!(cache.begin().end(&secret(), &answer(seconds(10)), NOW), Filled::Cached);
        let entry = cache.get(secret().id(), NOW).unwrap();
        assert!(cache.proves(&secret(), &entry.record));
        assert!(!cache.proves(&fixtures::secret([7; 16], [8; 32]), &entry.record));
        assert!(
            !RecordCache::new(1 << 20, Duration::ZERO).proves(&secret(), &entry.record),
            "another process's key"
        );
        assert!(!format!("{cache:?}").contains("tag"));
    }

    #[test]
    fn an_old_record_is_requested_again() {
        let cache = watching();
        cache.begin().end(&secret(), &answer(seconds(10)), NOW);
        let minutes = |minutes: i64| BootInstant { boot: minutes * 60_000_000_000, wall: 0 };
        assert!(cache.get(secret().id(), minutes(7)).is_some());
        assert!(cache.get(secret().id(), minutes(10)).is_none());
    }

    #[test]
    fn nothing_is_cached_before_the_watch_starts_or_across_a_restart() {
        let cache = RecordCache::new(1 << 20, Duration::from_mins(10));
        assert_eq!(cache.begin().end(&secret(), &answer(seconds(10)), NOW), Filled::No);
        let cache = watching();
        let fill = cache.begin();
        cache.clear();
        assert_eq!(fill.end(&secret(), &answer(seconds(10)), NOW), Filled::Outdated);
        assert!(!is_cached(&cache));
    }

    // Without the fill guard this record would be cached: its time, perhaps from another clock,
    // makes it look new.
    #[test]
    fn a_record_that_changes_during_its_request_is_not_cached() {
        let cache = watching();
        let fill = cache.begin();
        cache.forget(&[secret().id()], seconds(20), true);
        cache.forget(&[], seconds(21), true);
        assert_eq!(fill.end(&secret(), &answer(seconds(1_000)), NOW), Filled::Outdated);
        assert!(!is_cached(&cache));
        assert_eq!(cache.begin().end(&secret(), &answer(seconds(1_000)), NOW), Filled::Cached);
    }

    // Without the recent changes this record would be cached: nothing changed since it was asked
    // for, but the replica that answered does not know an earlier change yet.
    #[test]
    fn an_answer_older_than_a_reported_change_is_not_cached() {
        let cache = watching();
        cache.forget(&[secret().id()], seconds(20), true);
        cache.forget(&[], seconds(21), true);
        assert_eq!(cache.begin().end(&secret(), &answer(seconds(20)), NOW), Filled::Outdated);
        assert!(!is_cached(&cache));
        assert_eq!(cache.begin().end(&secret(), &answer(seconds(21)), NOW), Filled::Cached);
    }

    #[test]
    fn a_record_is_removed_when_it_changes_or_changes_may_be_missing() {
        let cache = watching();
        cache.begin().end(&secret(), &answer(seconds(10)), NOW);
        cache.forget(&[TokenId::from_bytes([1; 16])], seconds(20), true);
        assert!(is_cached(&cache));
        cache.forget(&[secret().id()], seconds(20), true);
        assert!(!is_cached(&cache));
        cache.forget(&[], seconds(21), true);
        cache.begin().end(&secret(), &answer(seconds(30)), NOW);
        cache.clear();
        assert!(!is_cached(&cache) && cache.size().0 == 0);
    }

    #[test]
    fn the_bytes_are_bounded() {
        let cache = RecordCache::new(64 << 10, Duration::from_mins(10));
        begin(&cache);
        for number in 0_u32..10_000 {
            let mut token = fixtures::token(&["a:b"]);
            let mut id = [7; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            token.id = TokenId::from_bytes(id);
            let answer = Verification { token: Some(VerifiedToken::new(token)), ..answer(seconds(10)) };
            cache.begin().end(&fixtures::secret(id, [9; 32]), &answer, NOW);
        }
        let (count, bytes) = cache.size();
        assert!(count > 10 && bytes <= 64 << 10, "{count} {bytes}");
    }

    #[test]
    fn a_token_with_limits_is_never_cached_but_its_answer_is_still_compared_with_changes() {
        let cache = watching();
        let limited = |as_of| Verification { limits: vec![limit()], ..answer(seconds(as_of)) };
        let filled = cache.begin().end(&secret(), &limited(10), NOW);
        assert_eq!((filled, cache.size().0), (Filled::No, 0));

        cache.forget(&[secret().id()], seconds(20), true);
        cache.forget(&[], seconds(21), true);
        assert_eq!(cache.begin().end(&secret(), &limited(20), NOW), Filled::Outdated);
        assert_eq!(cache.begin().end(&secret(), &answer(seconds(30)), NOW), Filled::Cached, "without limits");
    }

    fn limit() -> LimitStatus {
        let message = proto::LimitStatus { kind: proto::LimitKind::Rate.into(), ..Default::default() };
        message.try_into().unwrap()
    }
}
