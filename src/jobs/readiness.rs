//! Watches whether Verify can be answered, and has health checks told so: from the feed's first poll on, while
//! the cache may answer or Postgres does.

use std::sync::Arc;
use std::time::Duration;

use crate::grpc::Health;
use crate::store::Store;
use crate::verify::Engine;

/// How often it is looked at: the cache always, Postgres only when the cache may not answer.
const INTERVAL: Duration = Duration::from_millis(50);
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps health truthful until the server stops it.
pub async fn run(engine: Arc<Engine>, store: Store, health: Health) {
    let mut serving = false;
    loop {
        let mut pause = INTERVAL;
        let answer = if engine.may_answer() {
            Ok(true)
        } else if engine.has_begun() {
            pause = PING_INTERVAL;
            store.ping().await.map(|()| true)
        } else {
            Ok(false)
        };
        match (answer, serving) {
            (Ok(true), false) => {
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
            _ => {}
        }
        tokio::time::sleep(pause).await;
    }
}
