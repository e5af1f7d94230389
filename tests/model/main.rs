//! A model checker runs every interleaving of a loader, a feed and a Verify on the real
//! `core/src/fill_guard.rs` and `src/verify/cache_generation.rs`. Postgres is a counter of one
//! token's changes, the cache a cell, freshness the count that the feed guarantees. Each rule is
//! also removed once: the checker must then find a Verify whose response is older than a change that
//! it must include. `share` checks the shares of limits in the same way.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use loom::sync::Mutex;
use loom::sync::atomic::AtomicU32;
use loom::thread;

use crate::cache_generation::{CacheGeneration, Removals};
use crate::fill_guard::FillGuard;

#[path = "../../core/src/fill_guard.rs"]
#[expect(unreachable_pub, reason = "it is a library's, and open there")]
mod fill_guard;

#[path = "../../src/verify/cache_generation.rs"]
mod cache_generation;

mod limits;
mod share;

mod boot_instant {
    pub(crate) use tokend_core::boot_instant::BootInstant;
}

/// The source of the locks and atomics of both modules.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicI64, AtomicU64};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    /// Runs a test of the module itself.
    pub(super) fn explore(test: impl Fn() + Sync + Send + 'static) {
        loom::model(test);
    }
}

/// The only token.
const TOKEN: u32 = 7;

/// The result of a lookup: the number of changes of the token that its record includes.
type Version = u32;

/// One replica, and the database that it follows.
struct Replica {
    database: AtomicU32,
    record: Mutex<Option<Version>>,
    gate: FillGuard<u32>,
    removals: Removals,
    /// The number of changes that the feed guarantees to be included.
    fresh: AtomicU32,
}

impl Replica {
    /// Returns a replica with a record from before the change.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            database: AtomicU32::new(0),
            record: Mutex::new(Some(0)),
            gate: FillGuard::new(),
            removals: Removals::new(),
            fresh: AtomicU32::new(0),
        })
    }

    fn commit_a_change(&self) {
        self.database.store(1, Release);
    }

    fn read_database(&self) -> Version {
        self.database.load(Acquire)
    }

    fn insert(&self, version: Version) {
        *self.record.lock().unwrap() = Some(version);
    }

    fn remove(&self) {
        *self.record.lock().unwrap() = None;
    }

    fn look_up(&self) -> Option<Version> {
        *self.record.lock().unwrap()
    }

    fn publish(&self, snapshot: Version) {
        self.fresh.store(snapshot, Release);
    }

    // The steps of the loader.
    fn load(&self) {
        let ticket = self.gate.begin();
        let version = self.read_database();
        self.gate.fill(&ticket, [(TOKEN, version)], |_, version| self.insert(version));
    }

    // The steps of the feed when it learns of the change.
    fn poll(&self) {
        let snapshot = self.read_database();
        if snapshot > 0 {
            self.forget();
        }
        self.publish(snapshot);
    }

    fn forget(&self) {
        self.gate.invalidate(&[TOKEN]);
        self.remove();
        self.removals.removed();
    }

    // The steps of the feed when it cannot learn what has changed.
    fn start_anew(&self) {
        let snapshot = self.read_database();
        self.gate.invalidate_all();
        self.remove();
        self.removals.removed();
        self.publish(snapshot);
    }

    // The steps of a caller whose credential is judged by its record, twice in a row.
    fn call_twice(&self) {
        let seen = CacheGeneration::never();
        let mut known = None;
        for now in 0..2 {
            let promised = self.fresh.load(Acquire);
            let removals = self.removals.count();
            if !seen.holds(removals, now) {
                known = self.look_up();
                if known.is_some() {
                    seen.found(removals, now);
                }
            }
            assert!(known.is_none_or(|version| version >= promised), "answered from before a change");
        }
    }

    // The steps of a Verify.
    fn verify(&self) {
        let promised = self.fresh.load(Acquire);
        if let Some(version) = self.look_up() {
            assert!(version >= promised, "answered from before a change");
        }
    }
}

/// Runs every interleaving of a load, a poll and a Verify with a change, with at most two
/// preemptions; `LOOM_MAX_PREEMPTIONS=4` takes half a minute longer.
fn walk(load: fn(&Replica), poll: fn(&Replica), verify: fn(&Replica)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(2);
    model.check(move || {
        let replica = Replica::new();
        let threads = [load, poll, verify].map(|part| {
            let replica = Arc::clone(&replica);
            thread::spawn(move || part(&replica))
        });
        replica.commit_a_change();
        for thread in threads {
            thread.join().unwrap();
        }
        // The next Verify finds what is in the cache at the end.
        replica.verify();
    });
}

#[test]
fn no_answer_is_older_than_the_feed_guarantees() {
    walk(Replica::load, Replica::poll, Replica::verify);
}

#[test]
fn a_read_across_a_restart_fills_nothing() {
    walk(Replica::load, Replica::start_anew, Replica::verify);
}

#[test]
fn two_concurrent_loads_fill_nothing_old() {
    walk(Replica::load, Replica::poll, Replica::load);
}

#[test]
fn a_change_made_by_this_replica_holds_here_at_once() {
    loom::model(|| {
        let replica = Replica::new();
        let loader = Arc::clone(&replica);
        let loader = thread::spawn(move || loader.load());
        replica.commit_a_change();
        replica.forget();
        assert!(replica.look_up().is_none_or(|version| version == 1));
        loader.join().unwrap();
        assert!(replica.look_up().is_none_or(|version| version == 1));
    });
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn without_the_guard_an_old_record_enters() {
    let unguarded = |replica: &Replica| replica.insert(replica.read_database());
    walk(unguarded, Replica::poll, Replica::verify);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn a_lease_taken_after_the_read_guards_nothing() {
    let late = |replica: &Replica| {
        let version = replica.read_database();
        let ticket = replica.gate.begin();
        replica.gate.fill(&ticket, [(TOKEN, version)], |_, version| replica.insert(version));
    };
    walk(late, Replica::poll, Replica::verify);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn a_record_removed_before_its_reads_are_invalidated_comes_back() {
    let removed_first = |replica: &Replica| {
        let snapshot = replica.read_database();
        if snapshot > 0 {
            replica.remove();
            replica.gate.invalidate(&[TOKEN]);
        }
        replica.publish(snapshot);
    };
    walk(Replica::load, removed_first, Replica::verify);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn freshness_published_before_the_removal_covers_the_removed_record() {
    let published_first = |replica: &Replica| {
        let snapshot = replica.read_database();
        replica.publish(snapshot);
        if snapshot > 0 {
            replica.forget();
        }
    };
    walk(Replica::load, published_first, Replica::verify);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn freshness_read_after_the_lookup_covers_the_removed_record() {
    let looked_up_first = |replica: &Replica| {
        let found = replica.look_up();
        let promised = replica.fresh.load(Acquire);
        assert!(found.is_none_or(|version| version >= promised), "answered from before a change");
    };
    walk(Replica::load, Replica::poll, looked_up_first);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn a_restart_that_only_clears_lets_an_older_read_fill() {
    let only_clears = |replica: &Replica| {
        let snapshot = replica.read_database();
        replica.remove();
        replica.publish(snapshot);
    };
    walk(Replica::load, only_clears, Replica::verify);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn a_restart_that_clears_before_its_snapshot_keeps_reads_in_between() {
    let cleared_first = |replica: &Replica| {
        replica.gate.invalidate_all();
        replica.remove();
        let snapshot = replica.read_database();
        replica.publish(snapshot);
    };
    walk(Replica::load, cleared_first, Replica::verify);
}

#[test]
fn a_found_record_is_trusted_until_something_is_removed() {
    walk(Replica::load, Replica::poll, Replica::call_twice);
}

#[test]
fn a_found_record_is_looked_up_again_after_a_restart() {
    walk(Replica::load, Replica::start_anew, Replica::call_twice);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn an_uncounted_removal_leaves_the_removed_record_trusted() {
    let uncounted = |replica: &Replica| {
        let snapshot = replica.read_database();
        if snapshot > 0 {
            replica.gate.invalidate(&[TOKEN]);
            replica.remove();
        }
        replica.publish(snapshot);
    };
    walk(Replica::load, uncounted, Replica::call_twice);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn a_removal_counted_too_early_leaves_the_removed_record_trusted() {
    let counted_first = |replica: &Replica| {
        let snapshot = replica.read_database();
        if snapshot > 0 {
            replica.gate.invalidate(&[TOKEN]);
            replica.removals.removed();
            replica.remove();
        }
        replica.publish(snapshot);
    };
    walk(Replica::load, counted_first, Replica::call_twice);
}

#[test]
#[should_panic(expected = "answered from before a change")]
fn a_count_read_after_the_lookup_hides_its_removal() {
    let counted_late = |replica: &Replica| {
        let seen = CacheGeneration::never();
        let known = replica.look_up();
        if known.is_some() {
            seen.found(replica.removals.count(), 0);
        }
        let promised = replica.fresh.load(Acquire);
        let holds = seen.holds(replica.removals.count(), 0);
        assert!(!holds || known.is_none_or(|version| version >= promised), "answered from before a change");
    };
    walk(Replica::load, Replica::poll, counted_late);
}
