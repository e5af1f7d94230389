//! Watches whether Postgres answers, and has health checks told so. Verify needs it for every answer.

use std::time::Duration;

use crate::grpc::Health;
use crate::store::Store;

/// How often Postgres is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps health truthful until the server stops it.
pub async fn run(store: Store, health: Health) {
    let mut serving = false;
    loop {
        match (store.ping().await, serving) {
            (Ok(()), false) => {
                health.serving().await;
                serving = true;
                tracing::info!("the database answers: serving");
            }
            (Err(error), true) => {
                health.not_serving().await;
                serving = false;
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the database does not answer: not serving until it does");
            }
            (Ok(()), true) | (Err(_), false) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
