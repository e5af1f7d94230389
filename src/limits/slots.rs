//! The slots of the allowances in use, and which of them a token spends. Unused ones are removed after a while, so
//! that tokens that rest take no memory. Read by every Verify of a limited token; knows no SQL.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use quick_cache::DefaultHashBuilder;

use super::plans::{CachedPlan, Counts};
use super::slot::Slot;
use crate::clock::BootInstant;
use crate::domain::packed::PackedToken;
use crate::domain::{LimitSubject, OwnerKind, Record};
use crate::secret::TokenId;
use crate::store::AllowanceKey;

const SHARDS: usize = 64;

/// What a token spends: the plan, and for each of its limits a slot.
#[derive(Debug)]
pub(super) struct TokenSlots {
    pub(super) plan: Arc<CachedPlan>,
    pub(super) slots: Box<[Arc<Slot>]>,
    /// Whether it was used since the last look for unused ones.
    used: AtomicBool,
}

/// A rate and a balance of one name are two allowances.
type SlotKey = (AllowanceKey, bool);

type Map<K, V> = HashMap<K, V, DefaultHashBuilder>;

/// All slots of a replica.
#[derive(Debug, Default)]
pub(super) struct Slots {
    tokens: Sharded<RwLock<Map<TokenId, Arc<TokenSlots>>>>,
    slots: Sharded<Mutex<Map<SlotKey, Arc<Slot>>>>,
}

#[derive(Debug)]
struct Sharded<T> {
    shards: Box<[T]>,
    hashes: DefaultHashBuilder,
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| T::default()).collect(), hashes: DefaultHashBuilder::default() }
    }
}

impl<T> Sharded<T> {
    fn of(&self, key: &impl Hash) -> Option<&T> {
        // The upper bits: the table of the shard uses the lower ones.
        let at = usize::try_from(self.hashes.hash_one(key) >> 40).unwrap_or(0) % SHARDS;
        self.shards.get(at)
    }
}

impl Slots {
    /// Returns what this token spends, if it was used recently and its plan is the same.
    pub(super) fn get(&self, id: TokenId, record: &Record) -> Option<Arc<TokenSlots>> {
        let tokens = self.tokens.of(&id)?.read().unwrap_or_else(PoisonError::into_inner);
        let found = tokens.get(&id)?;
        if found.plan.is_outdated() || record.plan() != Some(&*found.plan.name) {
            return None;
        }
        // Read before write: a shared cache line that is only read stays in every core's cache.
        if !found.used.load(Ordering::Relaxed) {
            found.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(found))
    }

    /// Finds or creates the slots of a token with this plan.
    pub(super) fn put(&self, id: TokenId, record: &Record, plan: Arc<CachedPlan>) -> Option<Arc<TokenSlots>> {
        let token = record.packed();
        let slots = plan.limits.iter().map(|limit| {
            let subject = subject(limit.per, &token);
            let key = AllowanceKey { plan_id: plan.plan_id, limit: Arc::clone(&limit.name), subject };
            self.slot((key, limit.counts == Counts::Credits))
        });
        let slots = slots.collect::<Option<_>>()?;
        let slots = Arc::new(TokenSlots { plan, slots, used: AtomicBool::new(true) });
        let mut tokens = self.tokens.of(&id)?.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(id, Arc::clone(&slots));
        Some(slots)
    }

    fn slot(&self, key: SlotKey) -> Option<Arc<Slot>> {
        let mut slots = lock(self.slots.of(&key)?);
        if let Some(slot) = slots.get(&key) {
            return Some(Arc::clone(slot));
        }
        let slot = Arc::new(Slot::new(key.0.clone()));
        slots.insert(key, Arc::clone(&slot));
        Some(slot)
    }

    /// Removes tokens that were not used since the last call, and slots that nothing refers to.
    pub(super) fn unload(&self, lease: Duration, now: BootInstant) {
        for tokens in &self.tokens.shards {
            let mut tokens = tokens.write().unwrap_or_else(PoisonError::into_inner);
            tokens.retain(|_, slots| slots.used.swap(false, Ordering::Relaxed) && !slots.plan.is_outdated());
            if tokens.len() < tokens.capacity() / 4 {
                tokens.shrink_to_fit();
            }
        }
        for slots in &self.slots.shards {
            let mut slots = lock(slots);
            // Nobody else can begin to use it while the shard is locked. What holds a lease, the lessor refers to.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.is_current(lease, now) || slot.owes_of_outage(now)
            });
            if slots.len() < slots.capacity() / 4 {
                slots.shrink_to_fit();
            }
        }
    }

    /// Returns the slots that hold a lease.
    pub(super) fn leased(&self) -> Vec<Arc<Slot>> {
        let mut leased = Vec::new();
        for slots in &self.slots.shards {
            leased.extend(lock(slots).values().filter(|slot| slot.state().lease.is_some()).cloned());
        }
        leased
    }

    /// Returns how many allowances are loaded.
    pub(super) fn len(&self) -> usize {
        self.slots.shards.iter().map(|slots| lock(slots).len()).sum()
    }
}

fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what a limit counts of this token, as allowances name it.
#[must_use]
pub fn subject(per: LimitSubject, token: &PackedToken<'_>) -> Arc<str> {
    match per {
        LimitSubject::User => user_subject(token.owner_kind(), &String::from_utf8_lossy(token.user_id())),
        LimitSubject::Organization => organization_subject(),
        // A token's successors count with it.
        _ => family_subject(token.family_id()),
    }
}

/// Returns how allowances name a family, by the id of its first token.
#[must_use]
pub fn family_subject(family_id: &str) -> Arc<str> {
    format!("t:{family_id}").into()
}

/// Returns how allowances name a user.
#[must_use]
pub fn user_subject(kind: OwnerKind, user_id: &str) -> Arc<str> {
    format!("u:{}:{user_id}", kind.word()).into()
}

/// Returns how allowances name the organization of the plan.
#[must_use]
pub fn organization_subject() -> Arc<str> {
    Arc::from("o:")
}
