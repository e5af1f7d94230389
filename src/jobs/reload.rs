//! Reloads what operators replace while the server runs: TLS files, the keyring, the mappings of client
//! certificates, the database's password. Each is replaced completely or not at all. Started by the
//! server, which also provides the sources; knows no path.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::health::Health;
use crate::auth::callers::Callers;
use crate::domain::CertificateMappings;
use crate::metrics::{Metrics, Reloaded};
use crate::secret::{CurrentKeyring, KeyId, Keyring};
use crate::store::Store;
use crate::transport::tls::ServerTls;

/// The interval between two checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many checks there are per test of whether the database accepts new connections.
const LOOKS_PER_CONNECTION: u32 = 10;

/// Why something could not be reloaded.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

type Read<T> = Arc<dyn Fn() -> Result<T, ReadError> + Send + Sync>;

/// Where to reload from; nothing, unless set.
#[derive(Clone, Default)]
pub struct Origins {
    /// The keyring.
    pub keyring: Option<Read<Keyring>>,
    /// The mappings of client certificates.
    pub certificates: Option<Read<CertificateMappings>>,
    /// Changes when everything must be reloaded at once.
    pub hangups: Option<watch::Receiver<u64>>,
}

impl std::fmt::Debug for Origins {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Origins").finish_non_exhaustive()
    }
}

/// What is replaced.
#[derive(Clone)]
pub struct Targets {
    /// TLS of the listeners, which knows its files.
    pub tls: Option<Arc<ServerTls>>,
    /// The keyring.
    pub keyring: Arc<CurrentKeyring>,
    /// Holds the mappings of client certificates.
    pub callers: Arc<Callers>,
    /// The database, whose password may change.
    pub store: Store,
    /// Reports the server's health.
    pub health: Health,
    /// Counts the reloads.
    pub metrics: Arc<Metrics>,
}

/// The outcome of one check.
enum Outcome {
    Unchanged,
    Replaced,
    Refused(ReadError),
}

/// Checks all of them until the server stops the task.
pub async fn run(origins: Origins, targets: Targets) {
    let mut hangups = origins.hangups.clone();
    let mut refused: [Option<String>; 4] = Default::default();
    let mut rounds = 0_u32;
    loop {
        let at_once = wait(hangups.as_mut()).await;
        let outcomes = [
            (Reloaded::Tls, tls(targets.tls.as_ref()).await),
            (Reloaded::Keyring, keyring(origins.keyring.as_ref(), &targets).await),
            (Reloaded::Certificates, certificates(origins.certificates.as_ref(), &targets.callers).await),
            (Reloaded::DatabasePassword, password(&targets.store).await),
        ];
        for ((what, outcome), refused) in outcomes.into_iter().zip(&mut refused) {
            let Some(outcome) = outcome else { continue };
            report(what, &outcome, at_once, refused, &targets.metrics);
        }
        rounds = rounds.wrapping_add(1);
        if at_once || rounds.is_multiple_of(LOOKS_PER_CONNECTION) {
            try_connecting(&targets).await;
        }
    }
}

/// Reports whether the database accepts new connections: open ones keep the cache fresh even after the
/// password has changed. Not while the database does not respond at all, which readiness reports.
async fn try_connecting(targets: &Targets) {
    if !targets.health.is_serving() {
        return;
    }
    match targets.store.try_connecting().await {
        Ok(()) => {
            if targets.health.set_concern(None) {
                tracing::info!("the database accepts new connections again");
            }
        }
        Err(error) => {
            let reason = error.reason();
            if targets.health.set_concern(Some(reason)) {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "no new connection to the database can be opened: {reason}");
            }
        }
    }
}

/// Waits for the next check; returns whether it was requested.
async fn wait(hangups: Option<&mut watch::Receiver<u64>>) -> bool {
    let Some(hangups) = hangups else {
        tokio::time::sleep(INTERVAL).await;
        return false;
    };
    tokio::select! {
        () = tokio::time::sleep(INTERVAL) => false,
        changed = hangups.changed() => {
            if changed.is_err() {
                // Nobody can request any more.
                tokio::time::sleep(INTERVAL).await;
            }
            changed.is_ok()
        }
    }
}

fn report(what: Reloaded, outcome: &Outcome, at_once: bool, refused: &mut Option<String>, metrics: &Metrics) {
    let name = what.name();
    match outcome {
        Outcome::Unchanged => {
            *refused = None;
            if at_once {
                tracing::info!("asked to reload the {name}: it has not changed");
            }
        }
        Outcome::Replaced => {
            *refused = None;
            metrics.work.reloaded(what, true);
            tracing::info!("the {name} was reloaded and is in use");
        }
        Outcome::Refused(error) => {
            let message = chain(&**error);
            // Logged and counted once for each different reason, not every second.
            if at_once || refused.as_ref() != Some(&message) {
                metrics.work.reloaded(what, false);
                tracing::error!(
                    error = message,
                    "the {name} cannot be reloaded; the earlier one stays in use"
                );
            }
            *refused = Some(message);
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"))
}

/// Reads in a thread where blocking is allowed.
async fn read<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(read).await?
}

async fn tls(tls: Option<&Arc<ServerTls>>) -> Option<Outcome> {
    let tls = Arc::clone(tls?);
    Some(match read(move || Ok(tls.reload()?)).await {
        Ok(false) => Outcome::Unchanged,
        Ok(true) => Outcome::Replaced,
        Err(error) => Outcome::Refused(error),
    })
}

async fn certificates(origin: Option<&Read<CertificateMappings>>, callers: &Callers) -> Option<Outcome> {
    let origin = Arc::clone(origin?);
    Some(match read(move || origin()).await {
        Ok(mappings) if callers.has_mappings(&mappings) => Outcome::Unchanged,
        Ok(mappings) => {
            callers.replace_mappings(mappings);
            Outcome::Replaced
        }
        Err(error) => Outcome::Refused(error),
    })
}

async fn password(store: &Store) -> Option<Outcome> {
    let store = store.clone();
    match read(move || Ok(store.renew_password()?)).await {
        Ok(None) => None,
        Ok(Some(false)) => Some(Outcome::Unchanged),
        Ok(Some(true)) => Some(Outcome::Replaced),
        Err(error) => Some(Outcome::Refused(error)),
    }
}

async fn keyring(origin: Option<&Read<Keyring>>, targets: &Targets) -> Option<Outcome> {
    let origin = Arc::clone(origin?);
    let new = match read(move || origin()).await {
        Ok(new) => new,
        Err(error) => return Some(Outcome::Refused(error)),
    };
    let old = targets.keyring.get();
    if new.key_ids().eq(old.key_ids()) {
        return Some(Outcome::Unchanged);
    }
    let dropped: Vec<KeyId> = old.key_ids().filter(|&key_id| !new.contains(key_id)).collect();
    if !dropped.is_empty() {
        report_cost(&dropped, &targets.store).await;
    }
    tracing::info!(primary = %new.primary(), keys = new.key_ids().count(), "a new keyring");
    targets.keyring.replace(new);
    Some(Outcome::Replaced)
}

/// Logs the cost of dropped keys, before they are gone.
async fn report_cost(dropped: &[KeyId], store: &Store) {
    match store.count_tokens_by_key().await {
        Ok(counted) => {
            for (key_id, tokens) in counted.iter().filter(|(key_id, _)| dropped.contains(key_id)) {
                tracing::warn!(
                    key = %key_id,
                    tokens,
                    "the new keyring drops a key that tokens still use: the next Verify of each of these \
                     tokens costs an Argon2id computation; put the key back on a later line until `tokend \
                     key status` counts no tokens for it"
                );
            }
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "the new keyring drops keys, and it is not known how many tokens still use them"
            );
        }
    }
}
