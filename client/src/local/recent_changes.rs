//! The recent changes that the watch reported, and the time from which it reports everything: an
//! answer must include them to be cached, as it may come from a replica that lags behind the
//! watched one. Pure; called under the cache's lock.

use std::collections::VecDeque;

use time::{Duration, OffsetDateTime};
use tokend_core::secret::TokenId;

/// What happened to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// It is cached.
    Cached,
    /// There is nothing to cache, or it is not known whether the answer is new enough.
    No,
    /// A change was reported that the answer may not include.
    Outdated,
}

/// How many changes are remembered; a forgotten one keeps out every answer that may be older.
const MAX_CHANGES: usize = 4096;

/// How far the clocks of a database and of its successor may differ: an answer by the old clock
/// must not seem newer than the watch.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::seconds(1);

/// A change, and the time from which answers include it; `None`: not known yet.
#[derive(Debug)]
struct Change {
    id: TokenId,
    known_from: Option<OffsetDateTime>,
}

/// The changes that were reported.
#[derive(Debug, Default)]
pub(super) struct RecentChanges {
    recent: VecDeque<Change>,
    /// Answers must include everything that was committed before this; `None`: no answer can be cached.
    floor: Option<OffsetDateTime>,
    /// The previous message ended its batch: this one comes from a later statement.
    ended: bool,
    /// How many batches have ended on this connection.
    batches: u32,
}

impl RecentChanges {
    /// Records that messages now come over another connection, maybe from a replica that lags behind the
    /// previous one. Its first message comes from an older statement, its second from one that may have been
    /// running; only from the third on, their times are later than everything reported before.
    pub(super) fn connected(&mut self) {
        self.batches = 0;
    }

    /// Records a message's changes and its time.
    ///
    /// A change is visible to the statement that reported it, and may have been committed a moment
    /// after that statement's time; by the time of the next statement it was certainly committed.
    pub(super) fn note(&mut self, ids: &[TokenId], as_of: OffsetDateTime, last: bool) {
        if self.ended && self.batches >= 2 {
            for change in self.recent.iter_mut().rev().take_while(|change| change.known_from.is_none()) {
                change.known_from = Some(as_of);
            }
            // Changes that the watch did not report were committed before it began.
            if self.floor.is_none() {
                self.floor = Some(as_of + MAX_CLOCK_DIFFERENCE);
            }
        }
        for id in ids {
            self.recent.push_back(Change { id: *id, known_from: None });
        }
        self.ended = last;
        self.batches = self.batches.saturating_add(last.into());
        while self.recent.len() > MAX_CHANGES {
            let forgotten = self.recent.pop_front().and_then(|change| change.known_from);
            // No answer can include a change without a known time: all wait for the next message.
            self.floor = forgotten.and_then(|known_from| self.floor.map(|floor| floor.max(known_from)));
        }
    }

    /// Returns whether an answer as of this time may be cached.
    pub(super) fn admits(&self, id: TokenId, as_of: OffsetDateTime) -> Filled {
        if self.floor.is_none_or(|floor| as_of < floor) {
            return Filled::No;
        }
        let outdated = |change: &Change| {
            change.id == id && change.known_from.is_none_or(|known_from| as_of < known_from)
        };
        if self.recent.iter().any(outdated) { Filled::Outdated } else { Filled::Cached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn at(seconds: i64) -> OffsetDateTime {
        datetime!(2026-03-01 12:00 UTC) + Duration::seconds(seconds)
    }

    fn id(number: usize) -> TokenId {
        TokenId::from_bytes((number as u128).to_be_bytes())
    }

    /// A watch that begins at -1 and covers answers from 2 on.
    fn started() -> RecentChanges {
        let mut changes = RecentChanges::default();
        for seconds in -1..=1 {
            changes.note(&[], at(seconds), true);
        }
        changes
    }

    #[test]
    fn nothing_from_before_the_watch_is_cached_by_either_clock() {
        let mut changes = RecentChanges::default();
        assert_eq!(changes.admits(id(1), at(100)), Filled::No);
        for seconds in -1..=0 {
            changes.note(&[], at(seconds), true);
            assert_eq!(changes.admits(id(1), at(100)), Filled::No);
        }
        changes.note(&[], at(1), true);
        assert_eq!(changes.admits(id(1), at(1)), Filled::No);
        assert_eq!(changes.admits(id(1), at(2)), Filled::Cached);
    }

    #[test]
    fn a_change_counts_as_committed_by_the_time_of_the_next_statement() {
        let mut changes = started();
        changes.note(&[id(1)], at(10), true);
        assert_eq!(changes.admits(id(1), at(100)), Filled::Outdated);
        assert_eq!(changes.admits(id(2), at(5)), Filled::Cached);
        changes.note(&[], at(11), true);
        assert_eq!(changes.admits(id(1), at(10)), Filled::Outdated);
        assert_eq!(changes.admits(id(1), at(11)), Filled::Cached);
    }

    #[test]
    fn a_lagging_replica_does_not_settle_earlier_changes() {
        let mut changes = started();
        changes.note(&[id(1)], at(10), true);
        changes.connected();
        for seconds in [7, 8] {
            changes.note(&[], at(seconds), true);
            assert_eq!(changes.admits(id(1), at(9)), Filled::Outdated);
        }
        changes.note(&[], at(11), true);
        assert_eq!(changes.admits(id(1), at(9)), Filled::Outdated);
        assert_eq!(changes.admits(id(1), at(11)), Filled::Cached);
    }

    #[test]
    fn messages_of_one_batch_come_from_one_statement() {
        let mut changes = started();
        changes.note(&[id(1)], at(10), false);
        changes.note(&[id(2)], at(10), false);
        changes.note(&[], at(10), true);
        assert_eq!(changes.admits(id(1), at(10)), Filled::Outdated);
        assert_eq!(changes.admits(id(2), at(10)), Filled::Outdated);
        changes.note(&[], at(11), true);
        assert_eq!(changes.admits(id(1), at(11)), Filled::Cached);
        assert_eq!(changes.admits(id(2), at(10)), Filled::Outdated);
    }

    #[test]
    fn a_forgotten_change_keeps_out_every_older_answer() {
        let mut changes = started();
        changes.note(&[id(0)], at(10), true);
        changes.note(&(1..=MAX_CHANGES).map(id).collect::<Vec<_>>(), at(20), true);
        assert_eq!(changes.admits(id(9_999), at(19)), Filled::No);
        assert_eq!(changes.admits(id(9_999), at(20)), Filled::Cached);
        assert!(changes.recent.len() <= MAX_CHANGES);
        // More at once than is remembered: nothing is known until the next message.
        changes.note(&(0..=2 * MAX_CHANGES).map(id).collect::<Vec<_>>(), at(30), true);
        assert_eq!(changes.admits(id(9_999), at(1_000)), Filled::No);
        changes.note(&[], at(31), true);
        assert_eq!(changes.admits(id(9_999), at(31)), Filled::No);
        assert_eq!(changes.admits(id(9_999), at(32)), Filled::Cached);
    }
}
