//! Watches whether Verify can be answered, and has health checks told so: from the feed's first poll on, while
//! the cache may answer or Postgres does, changes are recorded, and the feed and the loader work.

use std::sync::Arc;
use std::time::Duration;

use crate::api::health::Health;
use crate::store::{Store, StoreError};
use crate::verify::{Engine, Unknown};

/// How often it is looked at: the cache always, Postgres only when the cache may not answer.
const INTERVAL: Duration = Duration::from_millis(50);
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How many looks at a cache that has not begun there are to one at Postgres.
const LOOKS_PER_PING: u32 = 20;

/// Why Verify is not to be asked.
#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error("the database does not answer")]
    Database(#[from] Unknown),
    #[error("triggers of the table tokens are off: changes are not recorded")]
    Unrecorded,
    #[error("the feed or the loader has panicked")]
    Panicked,
}

impl NotReady {
    /// Says why in a few fixed words.
    fn reason(&self) -> &'static str {
        match self {
            Self::Database(Unknown::Store(error)) => error.reason(),
            Self::Database(Unknown::Shared(error)) => error.reason(),
            Self::Database(_) => "the database was not asked",
            Self::Panicked => "the feed or the loader has panicked",
            Self::Unrecorded => "triggers of the table tokens are off",
        }
    }
}

/// Keeps health truthful until the server stops it.
pub(super) async fn run(engine: Arc<Engine>, store: Store, health: Health) {
    // Also when this task is started again.
    let mut serving = health.is_serving();
    let mut told = None;
    let mut looked = 0_u32;
    loop {
        let mut pause = INTERVAL;
        let answer = if !engine.works() {
            Err(NotReady::Panicked)
        } else if !engine.is_told_changes() {
            Err(NotReady::Unrecorded)
        } else if engine.may_answer() {
            Ok(true)
        } else if engine.has_begun() {
            pause = PROBE_INTERVAL;
            engine.probe().await.map(|()| true).map_err(NotReady::from)
        } else {
            looked += 1;
            let pinged = if looked.is_multiple_of(LOOKS_PER_PING) { store.ping().await } else { Ok(()) };
            match pinged {
                // Said by whoever waits for the database to be opened.
                Ok(()) | Err(StoreError::Starting) => Ok(false),
                Err(error) => Err(NotReady::Database(error.into())),
            }
        };
        match (answer, serving) {
            (Ok(true), false) => {
                health.serving();
                serving = true;
                told = None;
                tracing::info!("the database answers: serving");
            }
            (Err(error), _) if serving || told != Some(error.reason()) => {
                let reason = error.reason();
                health.not_serving(reason);
                serving = false;
                told = Some(reason);
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "not serving until that is over: {reason}");
            }
            _ => {}
        }
        tokio::time::sleep(pause).await;
    }
}
