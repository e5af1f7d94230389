//! Sets health to whether Verify can be answered: from the feed's first poll on, while the cache
//! may answer or Postgres responds, changes are recorded, and the feed and the loader run.

use std::sync::Arc;
use std::time::Duration;

use crate::api::health::Health;
use crate::store::{Store, StoreError};
use crate::verify::{Engine, VerdictError};

/// The interval of the checks: of the cache always, of Postgres only when the cache may not answer.
const INTERVAL: Duration = Duration::from_millis(50);
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How many checks of a cache that has not started there are per check of Postgres.
const LOOKS_PER_PING: u32 = 20;

/// Why Verify cannot be answered.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error("the database does not answer")]
    Database(#[from] VerdictError),
    #[error("triggers of the table tokens are off: changes are not recorded")]
    Unrecorded,
    #[error("the feed or the loader has panicked")]
    Panicked,
}

impl NotReady {
    /// Returns the reason as one of a few fixed texts.
    fn reason(&self) -> &'static str {
        match self {
            Self::Database(VerdictError::Store(error)) => error.reason(),
            Self::Database(VerdictError::Shared(error)) => error.reason(),
            Self::Database(_) => "the database was not asked",
            Self::Panicked => "the feed or the loader has panicked",
            Self::Unrecorded => "triggers of the table tokens are off",
        }
    }
}

/// Keeps health up to date until the server stops it.
pub(super) async fn run(engine: Arc<Engine>, store: Store, health: Health) {
    // Also right when this task is restarted.
    let mut serving = health.is_serving();
    let mut reported = None;
    let mut checks = 0_u32;
    loop {
        let mut pause = INTERVAL;
        let answer = if !engine.works() {
            Err(NotReady::Panicked)
        } else if !engine.receives_changes() {
            Err(NotReady::Unrecorded)
        } else if engine.may_answer() {
            Ok(true)
        } else if engine.has_started() {
            pause = PROBE_INTERVAL;
            engine.probe().await.map(|()| true).map_err(NotReady::from)
        } else {
            checks += 1;
            let pinged = if checks.is_multiple_of(LOOKS_PER_PING) { store.ping().await } else { Ok(()) };
            match pinged {
                // Reported by the task that waits for the database.
                Ok(()) | Err(StoreError::Starting) => Ok(false),
                Err(error) => Err(NotReady::Database(error.into())),
            }
        };
        match (answer, serving) {
            (Ok(true), false) => {
                health.serving();
                serving = true;
                reported = None;
                tracing::info!("the database answers: serving");
            }
            (Err(error), _) if serving || reported != Some(error.reason()) => {
                let reason = error.reason();
                health.not_serving(reason);
                serving = false;
                reported = Some(reason);
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "not serving until this ends: {reason}");
            }
            _ => {}
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::unconnected;

    #[tokio::test]
    async fn a_server_whose_workers_or_feed_have_panicked_is_not_ready() {
        for broken in ["workers", "feed"] {
            let store = unconnected::store();
            let mut engine = unconnected::engine(&store);
            match broken {
                "workers" => engine.panic_in_workers(4),
                _ => engine.panic_in_feed(),
            }
            let health = Health::default();
            health.serving();
            let mut checking = std::pin::pin!(run(Arc::new(engine), store, health.clone()));
            let refused = async {
                while health.is_serving() {
                    tokio::select! {
                        () = &mut checking => {}
                        () = tokio::time::sleep(Duration::from_millis(5)) => {}
                    }
                }
            };
            assert!(tokio::time::timeout(Duration::from_secs(20), refused).await.is_ok(), "{broken}");
            assert_eq!(health.reason(), "the feed or the loader has panicked", "{broken}");
        }
    }
}
