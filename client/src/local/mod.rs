//! Local verdicts: records of tokens that were asked for before, cached here and judged by the same
//! `judge` as on the server, as long as the watch's reports are recent enough.
//! docs/design/local-verdicts.md has the argument why no token is VALID later than the declared
//! staleness after its revocation.
//!
//! The order is the server's: the follower removes changed records before it publishes how fresh
//! the rest is, and a request reads the freshness before it looks a record up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokend_core::boot_instant::BootInstant;
use tokend_core::domain::{Reach, Verdict, judge};
use tokend_core::secret::{FormatError, Prefix, Secret};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::Error;
use crate::remote::{Remote, VerifierError};
use crate::verification::{Consistency, Verification, VerifyRequest};

mod clock;
mod follow;
mod freshness;
mod guesses;
#[cfg(test)]
mod model;
mod recent_changes;
mod record_cache;

use freshness::Freshness;
use guesses::Guesses;
use recent_changes::Filled;
use record_cache::RecordCache;

/// The bounds of the staleness: the shortest that can be kept, and the longest that is still useful
/// as a promise.
const MIN_STALENESS: Duration = Duration::from_millis(100);
const MAX_STALENESS: Duration = Duration::from_hours(1);

/// The settings of a local verifier.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    staleness: Duration,
    bytes: u64,
    max_age: Duration,
    prefix: Prefix,
    watch: Option<Client>,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            staleness: Duration::from_secs(1),
            bytes: 64 << 20,
            max_age: Duration::from_mins(10),
            prefix: Prefix::default(),
            watch: None,
        }
    }
}

impl LocalConfig {
    /// Refuses a staleness that cannot be kept.
    pub(crate) fn check(&self) -> Result<(), VerifierError> {
        if (MIN_STALENESS..=MAX_STALENESS).contains(&self.staleness) {
            Ok(())
        } else {
            Err(VerifierError::Staleness)
        }
    }

    /// Declares how long after its commit a change may go unnoticed here; 1 s by default, 100 ms to
    /// 1 h. Below about two heartbeats of the server (each a quarter of its own max-staleness) few
    /// requests are answered locally.
    #[must_use]
    pub fn staleness(self, staleness: Duration) -> Self {
        Self { staleness, ..self }
    }

    /// Sets the most bytes of the records; 64 MiB by default, about 1 KiB each.
    #[must_use]
    pub fn bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// Sets how long a record is cached if no change of it is reported; 10 minutes by default. Also
    /// the longest delay until tokend learns that a token is in use.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        Self { max_age: age, ..self }
    }

    /// Sets the prefix of the installation's secrets, if it is not `tokd`.
    #[must_use]
    pub fn prefix(self, prefix: Prefix) -> Self {
        Self { prefix, ..self }
    }

    /// Watches over another client's connection, for example to another replica, with the asking client's
    /// secret; if the caller is known by a certificate instead, both connections must use the same one.
    #[must_use]
    pub fn watch_through(self, client: Client) -> Self {
        Self { watch: Some(client), ..self }
    }
}

/// The status of a local verifier.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalStatus {
    /// The number of cached records, and their bytes.
    pub cached: u64,
    /// See [`Self::cached`].
    pub bytes: u64,
    /// The number of requests answered locally, and of those sent to tokend.
    pub local_verdicts: u64,
    /// See [`Self::local_verdicts`].
    pub remote_verdicts: u64,
    /// How old the local knowledge is; `None`: there is none.
    pub age: Option<Duration>,
    /// How often everything was removed because changes may have been missed.
    pub starts: u64,
    /// The last error of reading the database's time or of watching changes; `None` while it is ready.
    pub last_error: Option<Error>,
    ready: bool,
}

impl LocalStatus {
    /// Returns whether cached records are fresh enough to judge by. If not, every request is sent
    /// to tokend.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ready
    }
}

/// The local verifier. Its tasks end with it.
#[derive(Debug)]
pub(crate) struct Local {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// The state that requests and the follower share.
#[derive(Debug)]
struct Shared {
    remote: Remote,
    prefix: Prefix,
    cache: RecordCache,
    freshness: Freshness,
    guesses: Guesses,
    local_verdicts: AtomicU64,
    remote_verdicts: AtomicU64,
    starts: AtomicU64,
    last_error: ArcSwapOption<Error>,
}

impl Local {
    pub(crate) fn start(remote: Remote, config: LocalConfig) -> Self {
        let client = remote.client();
        // The watching client must see every change of tokens that the asking client can reach.
        let watch = config.watch.map_or_else(|| client.clone(), |through| client.over(&through));
        let shared = Arc::new(Shared {
            remote,
            prefix: config.prefix,
            cache: RecordCache::new(config.bytes, config.max_age),
            freshness: Freshness::new(config.staleness),
            guesses: Guesses::new(),
            local_verdicts: AtomicU64::new(0),
            remote_verdicts: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            last_error: ArcSwapOption::empty(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::Follower::new(watch, Arc::clone(&shared)).run());
        tasks.spawn(clock::keep_set(Arc::clone(&shared)));
        Self { shared, _tasks: tasks }
    }

    /// Judges by a cached record; `None` if that is not possible.
    pub(crate) fn judge(&self, request: &VerifyRequest<'_>) -> Option<Verification> {
        let answer = self.shared.judge(request, BootInstant::now);
        if answer.is_some() {
            self.shared.local_verdicts.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Asks tokend, and caches the answer unless a change was reported that it may not include.
    pub(crate) async fn verify_remotely(&self, request: &VerifyRequest<'_>) -> Result<Verification, Error> {
        let shared = &self.shared;
        let secret = match shared.read(request.secret) {
            Presented::Secret(secret) => Some(secret),
            Presented::Foreign => None,
            Presented::Malformed => return Ok(malformed()),
        };
        let peer = request.client_ip.map(|address| shared.guesses.peer(address));
        let Some(peer) = peer else { return shared.verify_remotely(request, secret).await };
        peer.check(BootInstant::now())?;
        let limit = shared.remote.client().call_timeout();
        let permit = tokio::time::timeout(limit, peer.at_once.acquire()).await;
        let _permit = permit.map_err(|_| Error::overloaded())?;
        // Checked again after the wait: by now there may have been too many.
        peer.check(BootInstant::now())?;
        let answer = shared.verify_remotely(request, secret).await?;
        if answer.verdict == Verdict::NotFound {
            peer.charge(BootInstant::now());
        }
        Ok(answer)
    }

    #[cfg(feature = "guard")]
    pub(crate) fn client(&self) -> &Client {
        self.shared.remote.client()
    }

    pub(crate) fn status(&self) -> LocalStatus {
        let shared = &self.shared;
        let (cached, bytes) = shared.cache.size();
        let now = BootInstant::now();
        let ready = shared.freshness.snapshot().read(now).is_some();
        LocalStatus {
            cached,
            bytes,
            local_verdicts: shared.local_verdicts.load(Ordering::Relaxed),
            remote_verdicts: shared.remote_verdicts.load(Ordering::Relaxed),
            age: shared.freshness.age(now),
            starts: shared.starts.load(Ordering::Relaxed),
            last_error: shared.last_error.load_full().filter(|_| !ready).map(|error| Error::clone(&error)),
            ready,
        }
    }
}

impl Shared {
    /// Records why nothing can be judged locally.
    fn failed(&self, what: &'static str, error: &Error) {
        self.remote.client().outage().note(what, error);
        self.last_error.store(Some(Arc::new(error.clone())));
    }

    /// Judges by a cached record. `now` is read before and after: this process or its machine may
    /// pause at any time, and a record that was fresh enough when the request came may be too old
    /// when it is answered.
    fn judge(&self, request: &VerifyRequest<'_>, now: impl Fn() -> BootInstant) -> Option<Verification> {
        let secret = match self.read(request.secret) {
            Presented::Secret(secret) => secret,
            Presented::Malformed => return Some(malformed()),
            Presented::Foreign => return None,
        };
        // The freshness first: read after the lookup, it could cover a record that was removed in between.
        let snapshot = self.freshness.snapshot();
        let came = now();
        let reading = snapshot.read(came)?;
        let answered = |verdict| Verification {
            verdict,
            token: None,
            missing_scopes: Vec::new(),
            as_of: Some(reading.as_of),
            limits: Vec::new(),
            retry_after: None,
        };
        if request.limit.is_some() {
            // Only tokend knows whether the token has this limit.
            return None;
        }
        let entry = self.cache.get(secret.id(), came)?;
        if !self.cache.proves(&secret, &entry.record) {
            return Some(answered(Verdict::NotFound));
        }
        // Reach is not checked here: tokend returned the token only because the caller can reach it.
        let judgement =
            judge(&entry.record, reading.now, Reach::Any, request.required_scopes, request.client_ip);
        let reading = snapshot.read(now())?;
        let ended = entry.record.expire_time().is_some_and(|end| end <= reading.now);
        // It expired in the meantime: its current state has to be asked for.
        if judgement.verdict == Verdict::Valid && ended {
            return None;
        }
        Some(Verification {
            token: Some(entry.token),
            missing_scopes: judgement.missing_scopes,
            ..answered(judgement.verdict)
        })
    }

    /// Parses the presented text.
    fn read(&self, text: &str) -> Presented {
        match Secret::parse(text, &self.prefix) {
            Ok(secret) => Presented::Secret(secret),
            Err(FormatError::Prefix) if is_of_another_prefix(text) => Presented::Foreign,
            Err(_) => Presented::Malformed,
        }
    }

    async fn verify_remotely(
        &self,
        request: &VerifyRequest<'_>,
        secret: Option<Secret>,
    ) -> Result<Verification, Error> {
        self.remote_verdicts.fetch_add(1, Ordering::Relaxed);
        let Some(secret) = secret else { return self.remote.verify(request, Consistency::Bounded).await };
        match self.fetch(request, &secret, Consistency::Bounded).await? {
            // A replica may lag behind the watched one, within its own bound. A change that was
            // already reported here must not be ignored, so the database itself is asked.
            (answer, Filled::Outdated) if answer.verdict == Verdict::Valid => {
                // The first answer has spent already.
                let again = VerifyRequest { cost: 0, ..*request };
                Ok(self.fetch(&again, &secret, Consistency::Full).await?.0)
            }
            (answer, _) => Ok(answer),
        }
    }

    async fn fetch(
        &self,
        request: &VerifyRequest<'_>,
        secret: &Secret,
        consistency: Consistency,
    ) -> Result<(Verification, Filled), Error> {
        let fill = self.cache.begin();
        let answer = self.remote.verify(request, consistency).await?;
        let filled = fill.end(secret, &answer, BootInstant::now());
        Ok((answer, filled))
    }
}

/// The kinds of presented text.
enum Presented {
    /// A secret of this installation.
    Secret(Secret),
    /// A secret with another prefix than is configured here: only tokend knows which of the two is wrong.
    Foreign,
    /// Not a secret.
    Malformed,
}

fn is_of_another_prefix(text: &str) -> bool {
    let prefix = text.split_once('_').and_then(|(prefix, _)| Prefix::parse(prefix).ok());
    prefix.is_some_and(|prefix| Secret::parse(text, &prefix).is_ok())
}

/// Returns the answer for a text that cannot be a secret; it holds at any time.
fn malformed() -> Verification {
    Verification {
        verdict: Verdict::Malformed,
        token: None,
        missing_scopes: Vec::new(),
        as_of: None,
        limits: Vec::new(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staleness_out_of_bounds_is_refused() {
        let declared = |staleness| LocalConfig::default().staleness(staleness).check();
        for bad in [Duration::ZERO, Duration::from_millis(99), Duration::from_hours(2), Duration::MAX] {
            assert_eq!(declared(bad), Err(VerifierError::Staleness), "{bad:?}");
        }
        for good in [Duration::from_millis(100), Duration::from_secs(1), Duration::from_hours(1)] {
            assert_eq!(declared(good), Ok(()), "{good:?}");
        }
    }
}
