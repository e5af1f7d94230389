//! Crowds: many clients with one token, many with distinct ones, floods of unknown, wrong or
//! invented secrets. Valid tokens are still served, and memory stays bounded. The long form has
//! 10,000 clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokend::api::proto::Verdict;
use tokend::secret::TokenId;
use tokio::task::JoinSet;

use super::fleet::{Process, long, report, url};
use super::setup::{Made, made};
use crate::support::client::{Client, bearing, forged, question, unknown_id};
use crate::support::replica::Installation;

async fn process(flags: &[&str]) -> Process {
    let installation = Installation::new().await;
    Process::start(&installation, &url(&installation.database), flags).await
}

/// Verifies each client's token `times` times, all clients concurrently; every verdict must be VALID.
async fn all_valid(clients: impl IntoIterator<Item = (Client, Made)>, times: u32) {
    let mut asking = JoinSet::new();
    for (mut client, token) in clients {
        asking.spawn(async move {
            for _ in 0..times {
                let answer = client.verify(question(&token.secret, &[])).await.unwrap().into_inner();
                assert_eq!(answer.verdict(), Verdict::Valid);
            }
        });
    }
    while let Some(ended) = asking.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_on_shared_and_own_tokens_are_all_served() {
    let process = process(&[]).await;
    let mut root = process.root();
    let one = made(&mut root).await;
    // One connection per client.
    all_valid((0..256).map(|_| (process.root(), one.clone())), 20).await;

    let mut tokens = Vec::new();
    for _ in 0..200 {
        tokens.push(made(&mut root).await);
    }
    let clients = if long() { 10_000 } else { 1_000 };
    // Over shared connections: ten thousand sockets exceed the limit of a process here.
    let channels: Vec<_> = (0..100).map(|_| process.root()).collect();
    let each = |number: usize| (channels[number % 100].clone(), tokens[number % tokens.len()].clone());
    let before = process.resident_bytes();
    all_valid((0..clients).map(each), 5).await;
    let after = process.resident_bytes();
    report(&format!("{clients} clients: resident memory {} MiB, before {} MiB", after >> 20, before >> 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_unknown_secrets_and_callers_displace_nobody() {
    let process = process(&["--cache-bytes", "1048576"]).await;
    let mut root = process.root();
    let valid = made(&mut root).await;
    let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut flood = JoinSet::new();
    let id = TokenId::parse(&valid.id).unwrap();
    for number in 0..96 {
        let (ended, sent, mut root, channel) =
            (Arc::clone(&ended), Arc::clone(&sent), process.root(), process.channel());
        flood.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                sent.fetch_add(1, Ordering::Relaxed);
                // Any outcome but VALID: the flood may be refused.
                let outcome = match number % 3 {
                    0 => root.verify(question(&forged(unknown_id()), &[])).await,
                    1 => root.verify(question(&forged(id), &[])).await,
                    _ => {
                        let made_up = format!("Bearer {}", forged(unknown_id()));
                        bearing(channel.clone(), &[&made_up]).verify(question("", &[])).await
                    }
                };
                assert!(outcome.map_or(true, |answer| answer.get_ref().verdict() != Verdict::Valid));
            }
        });
    }
    let floods = async |enough: u64| {
        let from = sent.load(Ordering::Relaxed);
        crate::support::eventually("the flood", async || {
            (sent.load(Ordering::Relaxed) > from + enough).then_some(())
        })
        .await;
    };
    let enough = if long() { 200_000 } else { 1_500 };
    floods(enough).await;
    let before = process.resident_bytes();
    let asked = all_valid((0..8).map(|_| (process.root(), valid.clone())), if long() { 2_000 } else { 50 });
    asked.await;
    // A token that is not in the cache is read during the flood.
    for _ in 0..20 {
        let fresh = made(&mut root).await;
        all_valid([(process.root(), fresh)], 1).await;
    }
    floods(enough).await;
    let after = process.resident_bytes();
    ended.store(true, Ordering::Relaxed);
    while let Some(ended) = flood.join_next().await {
        ended.unwrap();
    }
    let grown = after.saturating_sub(before);
    report(&format!("a flood of {}: {} MiB more", sent.load(Ordering::Relaxed), grown >> 20));
    assert!(grown < 64 << 20, "unknown ids leave nothing behind");
}
