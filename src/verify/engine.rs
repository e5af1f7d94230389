//! The engine itself: connects its parts, compares secrets with the records found, and judges. Called
//! through `verify`.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use super::cache::Cache;
use super::fallback::Fallback;
use super::loader::{Loader, PendingRead};
use super::mac_refresh::MacRefresh;
use super::read_point::{LookupResult, ReadPoint};
use super::read_queue::Lane;
use super::{ClientKey, Consistency, Criteria, ProveError, VerdictError, Verification};
use crate::admission::hash_pool::{HashPool, Overloaded};
use crate::changefeed::announce;
use crate::changefeed::feed::{Feed, FeedConfig, Invalidate};
use crate::changefeed::freshness::{Bounds, Freshness};
use crate::changefeed::registration::Registration;
use crate::clock::BootInstant;
use crate::domain::{Record, Verdict, judge};
use crate::limits::Limits;
use crate::metrics::{Metrics, Task};
use crate::runtime::tasks::Tasks;
use crate::secret::{CurrentKeyring, DurableCost, MacMatch, Prefix, Secret, TokenId};
use crate::store::{Connector, MacChange, Purpose, Store, StoreError};
use crate::usage::Usage;

/// The parts and settings of an engine.
#[derive(Debug)]
pub struct EngineConfig {
    /// For statements that need no dedicated connection.
    pub store: Store,
    /// Opens the loader's connections.
    pub connector: Connector,
    /// Opens the feed's connections.
    pub feed_connector: Connector,
    /// The keys of the fast verifier.
    pub keyring: Arc<CurrentKeyring>,
    /// The prefix of every secret.
    pub prefix: Prefix,
    /// Computes durable hashes when a MAC's key is gone.
    pub hashing: HashPool,
    /// The maximum cost of such a hash.
    pub limit: DurableCost,
    /// Receives MACs that were made with an older key.
    pub refresh: MacRefresh,
    /// The maximum age of the cache.
    pub bounds: Bounds,
    /// The maximum size of the cache, in bytes.
    pub cache_bytes: u64,
    /// The id of this replica in the database.
    pub replica: Uuid,
    /// Counts what the engine does.
    pub metrics: Arc<Metrics>,
}

/// Verifies secrets by their records. Its methods are in the files of their subject: `lookup`, `credential`, `status`
/// and `pending_invalidation` beside this one.
#[derive(Debug)]
pub struct Engine {
    pub(super) prefix: Prefix,
    pub(super) fallback: Fallback,
    pub(super) usage: Usage,
    keyring: Arc<CurrentKeyring>,
    pub(super) cache: Arc<Cache>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) loader: Loader,
    refresh: MacRefresh,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) wake: Arc<Notify>,
    pub(super) new_changes: Arc<Notify>,
    pub(super) changed: Arc<Notify>,
    pub(super) registration: Arc<Registration>,
    pub(super) tasks: Tasks,
}

/// A request whose record is being looked up or read.
#[derive(Debug)]
pub struct PendingVerification(State);

/// A lookup that was made ahead of its criteria.
#[derive(Debug)]
pub struct Prefetched {
    /// None when the text is malformed.
    secret: Option<Secret>,
    lookup: Option<LookupResult>,
}

impl Prefetched {
    /// Returns whether the cache had the record.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.lookup.is_some()
    }
}

#[derive(Debug)]
enum State {
    Malformed,
    /// The cache had the record when the request came.
    Cached(Secret),
    Reading(Secret, Consistency, Result<PendingRead, Overloaded>),
}

impl Engine {
    /// Starts an engine: its loader and its feed run until it is dropped. It answers from the feed's
    /// first poll on.
    #[must_use]
    pub fn start(config: EngineConfig) -> Self {
        let EngineConfig { store, connector, feed_connector, keyring, metrics, .. } = config;
        let cache = Arc::new(Cache::new(config.cache_bytes, Arc::clone(&metrics)));
        let freshness = Arc::new(Freshness::new(config.bounds));
        let (wake, new_changes) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let leasing = connector.clone();
        let loader = Loader::start(
            connector,
            Arc::clone(&cache),
            Arc::clone(&freshness),
            Arc::clone(&keyring),
            Arc::clone(&wake),
            Arc::clone(&metrics),
        );
        let limits = Limits::start(leasing, Arc::clone(&freshness), Arc::clone(&wake), Arc::clone(&metrics));
        let registration = Arc::new(Registration::new(config.replica, config.bounds.longest()));
        let invalidated = Arc::clone(&cache);
        let feed = FeedConfig {
            connector: feed_connector.clone(),
            invalidate: Invalidate::new(move |changed| invalidated.invalidate(changed)),
            freshness: Arc::clone(&freshness),
            wake: Arc::clone(&wake),
            new_changes: Arc::clone(&new_changes),
            metrics: Arc::clone(&metrics),
            registration: Arc::clone(&registration),
        };
        let mut tasks = Tasks::new(Arc::clone(&metrics));
        let (connector, woken) = (feed_connector.clone(), Arc::clone(&wake));
        let registered = Arc::clone(&registration);
        tasks.keep(Task::Registration, move || {
            Arc::clone(&registered).keep(connector.clone(), Arc::clone(&woken))
        });
        tasks.keep(Task::Feed, move || Feed::new(feed.clone()).run());
        if feed_connector.can_listen() {
            let wake = Arc::clone(&wake);
            tasks.keep(Task::Listen, move || announce::listen(feed_connector.clone(), Arc::clone(&wake)));
        }
        Self {
            prefix: config.prefix,
            fallback: Fallback::new(
                store.on(Purpose::Reads),
                Arc::clone(&keyring),
                config.hashing,
                config.limit,
            ),
            usage: Usage::default(),
            keyring,
            cache,
            freshness,
            loader,
            refresh: config.refresh,
            limits,
            metrics,
            wake,
            new_changes,
            changed: Arc::new(Notify::new()),
            registration,
            tasks,
        }
    }

    /// Judges a secret.
    ///
    /// # Errors
    /// [`VerdictError`] when the verdict cannot be determined.
    pub async fn verify(
        &self,
        text: &str,
        criteria: &Criteria<'_>,
        consistency: Consistency,
    ) -> Result<Verification, VerdictError> {
        self.complete(self.begin(text, consistency), criteria).await
    }

    /// Judges a secret, or a token whose id is given in its place, as if its secret was right. It is no use of the
    /// token.
    ///
    /// # Errors
    /// [`VerdictError`] when the verdict cannot be determined.
    pub async fn explain(&self, text: &str, criteria: &Criteria<'_>) -> Result<Verification, VerdictError> {
        let id = match (TokenId::parse(text), self.prove(text, criteria.charged_to).await) {
            (Ok(id), _) | (_, Ok(Some(id))) => id,
            (_, Ok(None)) => return Ok(Verification::bare(Verdict::NotFound, None)),
            (_, Err(ProveError::Format(_))) => return Ok(self.malformed()),
            (_, Err(ProveError::Undetermined(error))) => return Err(error),
        };
        let lookup = self.find(id, Lane::Secret).await?;
        let Some(record) = lookup.record.clone().filter(|record| criteria.reach.includes_record(record))
        else {
            return Ok(Verification::bare(Verdict::NotFound, Some(lookup.as_of)));
        };
        let judgement = judge(&record, lookup.now, criteria.reach, criteria.required, criteria.client_ip);
        let state = record.state(lookup.now);
        Ok(Verification {
            verdict: judgement.verdict,
            token: Some((record, state)),
            missing_scopes: judgement.missing_scopes,
            as_of: Some(lookup.as_of),
            spending: None,
        })
    }

    /// Judges a secret from a cache that is fresh at `read_point`; `None` when the cache cannot tell.
    #[must_use]
    pub fn try_verify(
        &self,
        text: &str,
        criteria: &Criteria<'_>,
        read_point: &ReadPoint,
    ) -> Option<Verification> {
        let Ok(secret) = Secret::parse(text, &self.prefix) else { return Some(self.malformed()) };
        let lookup = self.look_up_at(read_point, secret.id())?;
        let answer = self.judge(&secret, &lookup, criteria)?;
        let answer = self.spend_now(secret.id(), answer, criteria, lookup.now)?;
        answer.has_limit(criteria).then_some(answer)
    }

    /// Looks up the records of these secrets in a cache that is fresh at `read_point`, one step for all
    /// before the next step: while the processor waits for the memory of one record, it requests that
    /// of the next.
    pub fn prefetch<'t>(
        &self,
        texts: impl Iterator<Item = &'t str>,
        read_point: &ReadPoint,
        ahead: &mut VecDeque<Prefetched>,
    ) {
        let parsed = texts.map(|text| Secret::parse(text, &self.prefix).ok());
        ahead.extend(parsed.map(|secret| Prefetched { secret, lookup: None }));
        for Prefetched { secret, lookup } in &mut *ahead {
            *lookup = secret.as_ref().and_then(|secret| self.peek_at(read_point, secret.id()));
        }
        let records = ahead.iter().filter_map(|ahead| ahead.lookup.as_ref()?.record.as_ref());
        std::hint::black_box(records.fold(0, |all, record| all ^ record.touch()));
    }

    /// Judges a secret by its earlier lookup; `None` when that cannot tell. The lookup is not counted.
    #[must_use]
    pub fn judge_prefetched(&self, ahead: &Prefetched, criteria: &Criteria<'_>) -> Option<Verification> {
        let Some(secret) = &ahead.secret else { return Some(self.malformed()) };
        let lookup = ahead.lookup.as_ref()?;
        let answer = self.judge(secret, lookup, criteria)?;
        let answer = self.spend_now(secret.id(), answer, criteria, lookup.now)?;
        answer.has_limit(criteria).then_some(answer)
    }

    /// Starts to read what [`Self::complete`] will need, without waiting for it.
    #[must_use]
    pub fn begin(&self, text: &str, consistency: Consistency) -> PendingVerification {
        let Ok(secret) = Secret::parse(text, &self.prefix) else {
            return PendingVerification(State::Malformed);
        };
        PendingVerification(if consistency == Consistency::Bounded && self.look_up(secret.id()).is_some() {
            State::Cached(secret)
        } else {
            let reading = self.loader.enqueue(secret.id(), Lane::Secret);
            State::Reading(secret, consistency, reading)
        })
    }

    /// Judges a pending verification by `criteria` now. A record that was read longer ago than the maximum
    /// staleness is read again.
    ///
    /// # Errors
    /// [`VerdictError`] when the verdict cannot be determined.
    pub async fn complete(
        &self,
        pending: PendingVerification,
        criteria: &Criteria<'_>,
    ) -> Result<Verification, VerdictError> {
        let (secret, lookup) = match pending.0 {
            State::Malformed => return Ok(self.malformed()),
            State::Cached(secret) => {
                let lookup = self.find(secret.id(), Lane::Secret).await?;
                (secret, lookup)
            }
            State::Reading(secret, consistency, reading) => {
                let lookup = self.finish(secret.id(), Lane::Secret, consistency, reading).await?;
                (secret, lookup)
            }
        };
        let id = secret.id();
        let answer = match self.judge(&secret, &lookup, criteria) {
            Some(answer) => answer,
            None if self.prove_durably(secret, criteria.charged_to).await? => {
                self.conclude(id, &lookup, criteria)
            }
            None => Verification::bare(Verdict::NotFound, Some(lookup.as_of)),
        };
        let (answer, lookup) = self.spend(id, answer, lookup, criteria).await?;
        if !answer.has_limit(criteria) {
            return Err(VerdictError::NoSuchLimit);
        }
        let is_valid_before_limits =
            matches!(answer.verdict, Verdict::Valid | Verdict::RateLimited | Verdict::CreditsExhausted);
        if lookup.is_stale && !is_valid_before_limits {
            // Only VALIDs are used for longer in an outage; limits then still refuse.
            return Err(StoreError::Starting.into());
        }
        Ok(answer)
    }

    /// Returns whether the secret matches the record; `None` when the MAC's key is not in the ring.
    pub(super) fn compare(&self, secret: &Secret, record: &Record) -> Option<bool> {
        let keyring = self.keyring.peek();
        match keyring.check(secret, record.mac()) {
            MacMatch::Primary => Some(true),
            MacMatch::Older => {
                let new = keyring.mac(secret);
                self.refresh.suggest(MacChange { id: secret.id(), old: *record.mac(), new });
                Some(true)
            }
            MacMatch::Mismatch => Some(false),
            MacMatch::UnknownKey => None,
        }
    }

    /// Returns whether the durable verifier accepts the secret.
    pub(super) async fn prove_durably(&self, secret: Secret, share: ClientKey) -> Result<bool, VerdictError> {
        let id = secret.id();
        let proven = self.fallback.prove(secret, share).await?;
        if proven {
            // The cached MAC was made by no key of the ring; the new one is read next time.
            self.cache.forget(&[id]);
        }
        Ok(proven)
    }

    fn malformed(&self) -> Verification {
        let reading = self.freshness.read(BootInstant::now());
        Verification::bare(Verdict::Malformed, reading.map(|reading| reading.as_of))
    }

    /// Compares the secret with the record found and judges; `None` when only the durable verifier can
    /// tell.
    fn judge(&self, secret: &Secret, lookup: &LookupResult, criteria: &Criteria<'_>) -> Option<Verification> {
        let not_found = || Some(Verification::bare(Verdict::NotFound, Some(lookup.as_of)));
        let Some(record) = &lookup.record else { return not_found() };
        // Before the fallback: a caller cannot cause an Argon2id for tokens outside its reach.
        if !criteria.reach.includes_record(record) {
            return not_found();
        }
        if self.compare(secret, record)? {
            Some(self.conclude(secret.id(), lookup, criteria))
        } else {
            not_found()
        }
    }

    /// Judges a record whose secret matched.
    pub(super) fn conclude(
        &self,
        id: TokenId,
        lookup: &LookupResult,
        criteria: &Criteria<'_>,
    ) -> Verification {
        let Some(record) = &lookup.record else {
            return Verification::bare(Verdict::NotFound, Some(lookup.as_of));
        };
        let judgement = judge(record, lookup.now, criteria.reach, criteria.required, criteria.client_ip);
        // A stale cache answers only VALIDs. With a plan, the limits decide first; without one, a limit that the request
        // names does not exist.
        let decides_later =
            judgement.verdict == Verdict::Valid && (record.is_limited() || criteria.limit.is_some());
        if !decides_later && (judgement.verdict == Verdict::Valid || !lookup.is_stale) {
            self.usage.count(id, record, &judgement, criteria.client_ip, lookup.now);
        }
        Verification {
            verdict: judgement.verdict,
            token: Some((record.clone(), record.state(lookup.now))),
            missing_scopes: judgement.missing_scopes,
            as_of: Some(lookup.as_of),
            spending: None,
        }
    }
}
