//! The loader's workers, each with its own connection: one that has lost it leaves the reads to the
//! others.

use std::net::{Ipv4Addr, TcpListener};

use tokend::api::proto::{Consistency, Verdict, VerifyRequest};
use tokio::task::JoinSet;

use super::setup::{assert_unavailable, cached};
use crate::support::client::question;
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Installation;

/// The sessions of workers that have read and wait for more.
const SESSIONS: &str = "FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'
    AND query LIKE '%LEFT JOIN tokens t ON t.id = ANY(%'";

async fn sessions(database: &Database) -> i64 {
    database.count(format!("SELECT count(*) {SESSIONS}")).await
}

#[tokio::test]
async fn a_worker_without_a_connection_takes_no_reads_from_the_others() {
    let (installation, proxy) = (Installation::new().await, Proxy::start(LinkState::Open).await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.serve(config).await;
    let (mut root, database) = (replica.root(), &installation.database);
    let token = cached(&mut root).await;
    let full = || VerifyRequest { consistency: Consistency::Full.into(), ..question(&token.secret, &[]) };
    eventually("every worker has read", async || {
        let mut asked = JoinSet::new();
        for _ in 0..64 {
            let (mut root, request) = (replica.root(), full());
            asked.spawn(async move { root.verify(request).await.unwrap() });
        }
        asked.join_all().await;
        (sessions(database).await == 4).then_some(())
    })
    .await;

    // Nothing listens there any more; existing connections stay.
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    proxy.round_robin(&[unused]);
    database.execute(format!("SELECT pg_terminate_backend((SELECT pid {SESSIONS} LIMIT 1))")).await;
    let mut unavailable = 0;
    for _ in 0..200 {
        match root.verify(full()).await {
            Ok(answer) => assert_eq!(answer.into_inner().verdict(), Verdict::Valid),
            Err(status) => {
                assert_unavailable(&status);
                unavailable += 1;
            }
        }
    }
    assert_eq!(unavailable, 1, "the read that met the broken connection");

    proxy.lead_to(database.socket_dir());
    eventually("every worker has read again", async || {
        // The first reads meet connections that were cut.
        let _ = root.verify(full()).await;
        (sessions(database).await == 4).then_some(())
    })
    .await;
}
