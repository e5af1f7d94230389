//! Prepares the database before the server uses it: waits until it is reached, checks or migrates its schema, opens the
//! store. Called by `server`.

use std::time::Duration;

use super::ServerConfig;
use crate::api::health::Health;
use crate::store::{self, MigrateError, PoolerMode, Store};

/// The shortest and longest pause between two attempts to reach Postgres at the start.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Waits until Postgres is reached, however long that takes, and opens the store once the schema is right.
pub(super) async fn open(config: &ServerConfig, store: Store, health: Health) -> Result<(), MigrateError> {
    let mut pause = BACKOFF.0;
    loop {
        match prepare(config).await {
            Ok(()) => {
                store.open();
                return Ok(());
            }
            Err(error) if error.is_transient() || may_be_let_in_later(&error, config) => {
                let reason = error.reason();
                health.explain(reason);
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, retry_after = ?pause, "waiting for the database: {reason}");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Returns whether the password may still become right, since it is read again from a file.
fn may_be_let_in_later(error: &MigrateError, config: &ServerConfig) -> bool {
    error.is_authentication() && config.direct().password_file.is_some()
}

async fn prepare(config: &ServerConfig) -> Result<(), MigrateError> {
    // A migration checks the settings that it uses.
    let direct = if config.migrate { None } else { Some(config.direct()) };
    let other = config.direct_database.as_ref().map(|_| &config.database);
    for settings in [direct, other].into_iter().flatten() {
        if settings.pooling == PoolerMode::Session {
            store::check_sessions(settings).await?;
        }
    }
    if config.require_fsync {
        store::check_durability(config.direct()).await?;
    }
    if config.migrate {
        store::migrate(config.direct(), &config.prefix).await
    } else {
        store::check_writable(config.direct()).await?;
        store::check(config.direct(), &config.prefix).await
    }
}
