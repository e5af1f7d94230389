//! A Postgres that takes long for each query: it is still used to its capacity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokend::api::proto::{Consistency, Verdict, VerifyRequest};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::client::{created, ordinary, question};
use crate::support::eventually;
use crate::support::replica::Replica;

/// Delays each load of records, and each poll of the feed, by 0.2 s.
const SLOW: &str = "ALTER VIEW server_epoch RENAME TO real_epoch;
    CREATE VIEW server_epoch AS SELECT epoch FROM real_epoch, pg_sleep(0.2)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_continue_when_requests_exceed_a_slow_database() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut secrets = Vec::new();
    for _ in 0..300 {
        secrets.push(created(&mut root, ordinary()).await.secret);
    }
    sqlx::raw_sql(SLOW).execute(&mut replica.installation.database.connect().await).await.unwrap();
    let valid = Arc::new(AtomicU64::new(0));
    let mut asking = JoinSet::new();
    for number in 0..1_500 {
        let (secret, valid) = (secrets[number % secrets.len()].clone(), Arc::clone(&valid));
        if number % 100 == 0 {
            // One connection per hundred clients.
            root = replica.root();
        }
        let mut client = root.clone();
        asking.spawn(async move {
            loop {
                let full = VerifyRequest { consistency: Consistency::Full.into(), ..question(&secret, &[]) };
                match client.verify(full).await {
                    Ok(answer) => {
                        assert_eq!(answer.get_ref().verdict(), Verdict::Valid);
                        valid.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(status) => {
                        assert!(
                            matches!(status.code(), Code::Unavailable | Code::ResourceExhausted),
                            "{status:?}"
                        );
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        });
    }
    for _ in 0..3 {
        let before = valid.load(Ordering::Relaxed);
        eventually("more answers", async || (valid.load(Ordering::Relaxed) > before + 500).then_some(()))
            .await;
    }
    asking.shutdown().await;
}
