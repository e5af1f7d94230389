//! An administrator's revocations while others flood the replica with repeated revocations,
//! changes, pages, rotations of themselves, and wrong secrets; each alone, then all together. None
//! may be refused; the durations, compared with those on a quiet replica, are printed for a person.
//!
//! `cargo test --release --test overload revocations -- --nocapture` measures more of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokend::api::proto::DisableTokenRequest;

use crate::support::assorted_tokens::tokens_of_all_sorts;
use crate::support::client::{Client, created, ordinary, revocation};
use crate::support::flood::{Calls, Flood, Server, kinds, low_priority_runtime};
use crate::support::replica::Installation;

/// The number of revocations measured in each flood.
const MEASURED: usize = if cfg!(debug_assertions) { 12 } else { 200 };

/// Revokes these tokens one after the other, each fifth after disabling it; returns the median, the
/// 99th percentile, and the longest.
async fn revocations(admin: &mut Client, victims: &[String], what: &str) -> [Duration; 3] {
    let mut took = Vec::new();
    for (number, id) in victims.iter().enumerate() {
        if number % 5 == 0 {
            let disabled =
                admin.disable_token(DisableTokenRequest { token_id: id.clone(), ..Default::default() }).await;
            assert!(disabled.is_ok(), "disabling during {what}: {disabled:?}");
        }
        let began = Instant::now();
        let done = admin.revoke_token(revocation(id, "leaked")).await;
        took.push(began.elapsed());
        assert!(done.is_ok(), "revocation {number} during {what}: {done:?}");
    }
    took.sort_unstable();
    [took.len() / 2, took.len() * 99 / 100, took.len() - 1].map(|rank| took[rank])
}

async fn victims(admin: &mut Client) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..MEASURED {
        ids.push(created(admin, ordinary()).await.token.unwrap().id);
    }
    ids
}

#[expect(clippy::print_stderr, reason = "what was measured is for a person")]
fn tell(what: &str, [usual, p99, longest]: [Duration; 3], beside: u64) {
    eprintln!("{what}: {usual:.1?}, p99 {p99:.1?}, the longest {longest:.1?}, beside {beside} answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flood_blocks_an_administrators_revocation() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.database_connections = 16;
    let replica = installation.serve(config).await;
    tokens_of_all_sorts(&installation.database).await;
    let server =
        Server { url: format!("http://{}", replica.address), root_secret: installation.root_secret.clone() };
    let server = Arc::new(server);
    let (mut root, mut admin) = (server.root(), server.root());
    let clients = low_priority_runtime();
    let (target, handle) = (Arc::clone(&server), clients.handle().clone());
    let (each, all) = tokio::task::spawn_blocking(move || {
        handle.block_on(async {
            let each = kinds(&target).await;
            // Once more: a token can be rotated only once.
            let all: Calls = kinds(&target).await.into_iter().flat_map(|(_, calls)| calls).collect();
            (each, all)
        })
    })
    .await
    .unwrap();

    let mut groups = Vec::new();
    for _ in 0..7 {
        groups.push(victims(&mut root).await);
    }
    let quiet = groups.pop().unwrap();
    tell("a quiet time", revocations(&mut admin, &quiet, "a quiet time").await, 0);
    let floods = each.into_iter().chain([("all of it", all)]);
    for ((what, calls), victims) in floods.zip(groups) {
        let (target, handle) = (Arc::clone(&server), clients.handle().clone());
        let begun = tokio::task::spawn_blocking(move || handle.block_on(Flood::begin(&target, &calls)));
        let flood = begun.await.unwrap();
        let took = revocations(&mut admin, &victims, what).await;
        tell(what, took, flood.end().await);
    }
    clients.shutdown_background();
}
