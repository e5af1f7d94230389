//! The memory of cached tokens, counted by the allocator: the real `src/verify/cache.rs`, filled
//! beyond its bound.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;
use std::sync::Arc;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use time::OffsetDateTime;
use tokend::domain::{Labels, OrganizationId, Principal, Record, Scope, Scopes, Token, TokenName, UserId};
use tokend::metrics::Metrics;
use tokend::secret::{KeyId, Mac, TokenId};
use tokend::{changefeed, clock, domain, metrics, secret};

use crate::cache::Cache;
use crate::clock::BootInstant;

#[path = "../../src/verify/cache.rs"]
#[expect(dead_code, reason = "not all of it is called here")]
mod cache;

#[path = "../../src/verify/cache_generation.rs"]
#[expect(dead_code, reason = "not all of it is called here")]
mod cache_generation;

#[path = "../../src/verify/kept_records.rs"]
#[expect(dead_code, reason = "not all of it is called here")]
mod kept_records;

/// The types that the model checker replaces in its own test.
mod sync {
    pub(super) use std::sync::atomic::{AtomicI64, AtomicU64};
}

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The bound of the cache in bytes.
const BYTES: u64 = 16 << 20;

/// The number of tokens read, more than fit in the cache.
const TOKENS: u32 = 100_000;

/// The most bytes for a token with four scopes and two labels.
const GOAL: u64 = 400;

#[test]
fn a_full_cache_stays_within_its_bytes_and_within_the_bytes_per_token() {
    let metrics = Arc::new(Metrics::new().unwrap());
    for (scopes, goal) in [
        (&["repo:*", "user:read", "deploy:staging", "reports:read"][..], GOAL),
        (&[], GOAL),
        // So long that rounding matters.
        (&["a:long.enough.scope.that.says.everything.that.it.may.be.used.for.and.more:read"; 1], 2 * GOAL),
    ] {
        let region = Region::new(ALLOCATOR);
        let cache = Cache::new(BYTES, Arc::clone(&metrics));
        for number in 0..TOKENS {
            read(&cache, number, scopes);
        }

        let allocated = u64::try_from(region.change().bytes_allocated - region.change().bytes_deallocated);
        let (allocated, (records, bytes)) = (allocated.unwrap(), cache.size());
        println!("{records} records, {bytes} bytes by the cache, {allocated} by the allocator");
        assert!(records < u64::from(TOKENS), "there was room for all");
        assert!(bytes <= BYTES && bytes > BYTES / 100 * 97, "{bytes} of {BYTES}");
        assert!(allocated <= BYTES, "{allocated} of {BYTES}");
        assert!(bytes / records <= goal, "{} bytes a token", bytes / records);
    }
}

/// Fills the cache with a token, as the loader does.
fn read(cache: &Cache, number: u32, scopes: &[&str]) {
    let ticket = cache.begin_read();
    let id = TokenId::from_bytes((u128::from(number) << 64 | 7).to_be_bytes());
    let record = Record::new(&token(id, scopes), Mac { key_id: KeyId::from_bytes([0; 8]), tag: [0; 32] });
    cache.end_read(&ticket, BootInstant { boot: 0, wall: 0 }, [(id, record)]);
}

fn token(id: TokenId, scopes: &[&str]) -> Token {
    let labels = [("team", "billing"), ("environment", "production")];
    let scopes = scopes.iter().map(|text| Scope::parse(text).unwrap()).collect();
    let now = OffsetDateTime::from_unix_timestamp_nanos(1_760_000_000_123_456_000).unwrap();
    let owner = (OrganizationId::parse("acme").unwrap(), UserId::parse("user-000123").unwrap());
    let name = TokenName::parse("continuous integration").unwrap();
    Token {
        scopes: Scopes::new(scopes).unwrap(),
        labels: Labels::parse(labels.map(|(key, value)| (key.to_owned(), value.to_owned()))).unwrap(),
        expire_time: Some(now + time::Duration::days(90)),
        ..Token::new(id, owner, name, (now, Principal::Token(id)))
    }
}
