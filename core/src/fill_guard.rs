//! Keeps old records out of a cache: a read may fill only what has not changed since it was sent.
//! Called by caches, when they fill and invalidate. Pure state behind one lock, generic over the key,
//! so that a model checker can test every interleaving (tests/model).

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::PoisonError;

use super::sync::{Mutex, MutexGuard};

/// After this many changes during one read, none of its records is filled: remembering more would cost
/// more than reading again.
const MAX_INVALIDATED: usize = 4096;

/// The reads in progress, and what has changed since each was sent.
#[derive(Debug)]
pub struct FillGuard<K> {
    reads: Mutex<Reads<K>>,
}

#[derive(Debug)]
struct Reads<K> {
    next: u64,
    /// One entry per read, so as many as the loader has workers.
    in_progress: Vec<Read<K>>,
}

#[derive(Debug)]
struct Read<K> {
    number: u64,
    invalidated: HashSet<K>,
}

/// Allows one read to fill what has not changed since. Taken before the read is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease(u64);

impl<K: Hash + Eq + Copy> FillGuard<K> {
    /// Creates a guard with no reads in progress.
    #[must_use]
    pub fn new() -> Self {
        Self { reads: Mutex::new(Reads { next: 0, in_progress: Vec::new() }) }
    }

    /// Registers a read that is about to be sent.
    pub fn begin(&self) -> Lease {
        let mut reads = self.lock();
        let number = reads.next;
        reads.next += 1;
        reads.in_progress.push(Read { number, invalidated: HashSet::new() });
        Lease(number)
    }

    /// Ends a read. Calls `insert` for each of `found` that may enter the cache, under the lock: a
    /// later removal finds it there.
    pub fn fill<T>(
        &self,
        ticket: &Lease,
        found: impl IntoIterator<Item = (K, T)>,
        mut insert: impl FnMut(K, T),
    ) {
        let mut reads = self.lock();
        let Some(at) = reads.in_progress.iter().position(|read| read.number == ticket.0) else { return };
        let read = reads.in_progress.swap_remove(at);
        if read.invalidated.len() > MAX_INVALIDATED {
            return;
        }
        for (key, value) in found {
            if !read.invalidated.contains(&key) {
                insert(key, value);
            }
        }
    }

    /// Ends a read without filling anything.
    pub fn abandon(&self, ticket: &Lease) {
        self.lock().in_progress.retain(|read| read.number != ticket.0);
    }

    /// Returns whether no read is in progress: each was ended or abandoned.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lock().in_progress.is_empty()
    }

    /// Prevents every read in progress from filling these keys. Must be called before they are removed
    /// from the cache.
    pub fn invalidate(&self, keys: &[K]) {
        let mut reads = self.lock();
        for read in &mut reads.in_progress {
            for key in keys {
                // Checked for each key: repeated keys take no memory, and must not keep later ones out.
                if read.invalidated.len() > MAX_INVALIDATED {
                    break;
                }
                read.invalidated.insert(*key);
            }
        }
    }

    /// Prevents every read in progress from filling anything. Must be called before the cache is
    /// cleared.
    pub fn invalidate_all(&self) {
        self.lock().in_progress.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Reads<K>> {
        // A panic inside leaves no harmful state: at worst a read is forgotten.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Copy> Default for FillGuard<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::explore;
    use super::*;

    fn filled(gate: &FillGuard<u32>, ticket: &Lease, keys: &[u32]) -> Vec<u32> {
        let mut filled = Vec::new();
        gate.fill(ticket, keys.iter().map(|key| (*key, ())), |key, ()| filled.push(key));
        filled
    }

    #[test]
    fn a_read_fills_only_keys_that_have_not_changed_since_it_began() {
        explore(|| {
            let gate = FillGuard::new();
            gate.invalidate(&[1]);
            let ticket = gate.begin();
            gate.invalidate(&[2]);
            assert_eq!(filled(&gate, &ticket, &[1, 2, 3]), [1, 3]);
        });
    }

    #[test]
    fn a_read_from_before_a_restart_fills_nothing() {
        explore(|| {
            let gate = FillGuard::new();
            let before = gate.begin();
            gate.invalidate_all();
            let after = gate.begin();
            assert!(filled(&gate, &before, &[1]).is_empty());
            assert_eq!(filled(&gate, &after, &[1]), [1]);
        });
    }

    #[test]
    fn a_read_ends_once_and_too_many_changes_invalidate_it_completely() {
        explore(|| {
            let gate = FillGuard::new();
            let ticket = gate.begin();
            assert_eq!(filled(&gate, &ticket, &[1]), [1]);
            assert!(filled(&gate, &ticket, &[1]).is_empty());
            let ticket = gate.begin();
            gate.invalidate(&(10..20_000).collect::<Vec<_>>());
            assert!(filled(&gate, &ticket, &[1]).is_empty());
            let ticket = gate.begin();
            gate.abandon(&ticket);
            assert!(gate.is_idle());
        });
    }

    #[test]
    fn a_key_after_many_repeats_is_invalidated_too() {
        explore(|| {
            let gate = FillGuard::new();
            let ticket = gate.begin();
            let mut changed = vec![1; 10_000];
            changed.push(2);
            gate.invalidate(&changed);
            assert_eq!(filled(&gate, &ticket, &[2, 3]), [3]);
            let ticket = gate.begin();
            gate.invalidate(&(10..4_010).collect::<Vec<_>>());
            changed = (10..4_010).collect();
            changed.push(2);
            gate.invalidate(&changed);
            assert_eq!(filled(&gate, &ticket, &[2, 3]), [3]);
        });
    }
}
