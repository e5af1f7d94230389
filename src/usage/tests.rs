//! No verification is lost or counted twice, whatever happens between two flushes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokend_core::fixtures::token;

use super::refusals::{MAX_COUNTED, MAX_SCOPE_BYTES};
use super::uses::MAX_NOTED;
use super::*;
use crate::domain::Scope;
use crate::secret::{KeyId, Mac};

const SHARDS: usize = 16;

fn record() -> Record {
    Record::new(&token(&[]), Mac { key_id: KeyId::from_bytes([0; 8]), tag: [0; 32] })
}

fn judged(verdict: Verdict) -> Judgement {
    Judgement { verdict, missing_scopes: Vec::new() }
}

fn id(number: u32, shard: u8) -> TokenId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    id[15] = shard;
    TokenId::from_bytes(id)
}

#[test]
fn every_use_is_counted_once_while_records_are_flushed_evicted_and_read_again() {
    const THREADS: u64 = 4;
    const USES: u64 = 50_000;
    let (usage, now) = (Usage::default(), token(&[]).create_time);
    let cached: [Mutex<Record>; 3] = std::array::from_fn(|_| Mutex::new(record()));
    let ended = AtomicBool::new(false);
    let mut counted: HashMap<(TokenId, Verdict), u64> = HashMap::new();
    let mut add = || {
        for count in usage.take() {
            *counted.entry((count.id, count.verdict)).or_default() += count.verifications;
        }
    };
    thread::scope(|scope| {
        let users: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    for number in 0..USES {
                        let which = u8::try_from(number % 3).unwrap();
                        let entry = &cached[usize::from(which)];
                        let found = entry.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        usage.count(id(0, which), &found, &judged(Verdict::Valid), None, now);
                        if number % 7 == 0 {
                            usage.note(id(0, which), &found, now);
                        }
                        if number % 5 == 0 {
                            usage.count(id(0, which), &found, &judged(Verdict::Revoked), None, now);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for entry in &cached {
                    *entry.lock().unwrap_or_else(PoisonError::into_inner) = record();
                }
            }
        });
        while users.iter().any(|user| !user.is_finished()) {
            add();
        }
        ended.store(true, Ordering::Relaxed);
    });
    add();
    let total =
        |verdict| counted.iter().filter(|((_, of), _)| *of == verdict).map(|(_, count)| count).sum::<u64>();
    assert_eq!(total(Verdict::Valid), THREADS * USES);
    assert_eq!(total(Verdict::Revoked), THREADS * USES / 5);
    assert_eq!(usage.take_lost(), 0);
}

#[test]
fn the_number_of_noted_tokens_is_bounded_and_what_is_lost_is_counted() {
    let (usage, now) = (Usage::default(), token(&[]).create_time);
    let each = u32::try_from(MAX_NOTED / SHARDS).unwrap();
    (0..each).for_each(|number| usage.count(id(number, 0), &record(), &judged(Verdict::Valid), None, now));
    let late = record();
    usage.count(id(each, 0), &late, &judged(Verdict::Valid), None, now);
    assert_eq!(usage.noted(), u64::from(each));
    assert_eq!(usage.take_lost(), 1);
    assert_eq!(usage.take().len(), MAX_NOTED / SHARDS);
    usage.count(id(each, 0), &late, &judged(Verdict::Valid), None, now);
    assert_eq!(usage.take()[0].verifications, 1);

    let each = u32::try_from(MAX_COUNTED / SHARDS).unwrap();
    (0..=each).for_each(|number| usage.count(id(number, 0), &late, &judged(Verdict::Expired), None, now));
    assert_eq!(usage.take_lost(), 1);
    usage.count(id(0, 0), &late, &judged(Verdict::Expired), None, now);
    assert_eq!(usage.take().iter().map(|count| count.verifications).sum::<u64>(), u64::from(each) + 1);
}

#[test]
fn refusals_take_bounded_memory_however_long_the_missing_scopes_are() {
    let (usage, record, now) = (Usage::default(), record(), token(&[]).create_time);
    let long = |letter: &str| Scope::parse(&letter.repeat(100)).unwrap();
    let missing_scopes = ["a", "b", "c", "d", "e"].map(long).to_vec();
    let judgement = Judgement { verdict: Verdict::MissingScope, missing_scopes };
    let each = u32::try_from(MAX_COUNTED / SHARDS).unwrap();
    // Twice: what replaces another takes its memory.
    for _ in 0..2 {
        (0..each).for_each(|number| usage.count(id(number, 0), &record, &judgement, None, now));
    }
    let counts = usage.take();
    assert_eq!(counts.len(), MAX_COUNTED / SHARDS, "each is counted");
    let refusals = || counts.iter().filter_map(|count| count.refusal.as_ref());
    assert_eq!(refusals().count(), counts.len());
    let scopes = || refusals().flat_map(|refusal| &refusal.missing_scopes);
    let bytes: usize = scopes().map(|scope| scope.capacity() + size_of::<String>()).sum();
    assert!((MAX_SCOPE_BYTES / SHARDS * 9 / 10..=MAX_SCOPE_BYTES / SHARDS).contains(&bytes), "{bytes}");
    usage.count(id(1, 0), &record, &judgement, None, now);
    assert_eq!(usage.take()[0].refusal.as_ref().unwrap().missing_scopes.len(), 4, "a flush frees it");
}
