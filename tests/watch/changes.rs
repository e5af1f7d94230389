//! The changes that a watch reports, and to whom.

use std::time::Duration;

use tokend::api::proto::{
    ChangeKind, DisableTokenRequest, EnableTokenRequest, TokenState, WatchTokensRequest,
};
use tokend::verify::Bounds;
use tonic::Code;

use super::watcher::{Watcher, summaries};
use crate::support::client::{created, created_with, nanos, ordinary, revoked};
use crate::support::in_time;
use crate::support::replica::{Installation, Replica};
use crate::support::status::{check, refused};

#[tokio::test]
async fn each_change_is_sent_with_its_kind_and_the_current_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let (mut watcher, missed) = Watcher::start(&mut root.clone(), "").await;
    assert!(missed.is_empty());

    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let created = watcher.changes(1).await;
    revoked(&mut root, &id, "lost").await;
    let revoked = watcher.changes(1).await;

    assert_eq!(summaries(&created), [(id.clone(), ChangeKind::Created)]);
    assert_eq!(summaries(&revoked), [(id, ChangeKind::Revoked)]);
    assert_eq!(revoked[0].organization_id, "default");
    assert_eq!(revoked[0].token.as_ref().unwrap().revoke_reason, "lost");
    assert!(nanos(revoked[0].change_time.as_ref()) > nanos(created[0].change_time.as_ref()));
}

#[tokio::test]
async fn disabling_and_enabling_are_sent_with_their_kinds() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let token_id = created(&mut root, ordinary()).await.token.unwrap().id;
    let mut watcher = Watcher::start_after_all(&mut root.clone(), &mut root).await;

    root.disable_token(DisableTokenRequest { token_id: token_id.clone(), ..Default::default() })
        .await
        .unwrap();
    let disabled = watcher.changes(1).await;
    root.enable_token(EnableTokenRequest { token_id: token_id.clone() }).await.unwrap();
    let enabled = watcher.changes(1).await;

    assert_eq!(summaries(&disabled), [(token_id.clone(), ChangeKind::Disabled)]);
    assert_eq!(disabled[0].token.as_ref().unwrap().state(), TokenState::Disabled);
    assert_eq!(summaries(&enabled), [(token_id, ChangeKind::Enabled)]);
    assert_eq!(enabled[0].token.as_ref().unwrap().disable_time, None);
}

#[tokio::test]
async fn changes_made_in_psql_are_sent_too() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let mut watcher = Watcher::start_after_all(&mut root.clone(), &mut root).await;
    let database = &replica.installation.database;

    database.execute("UPDATE tokens SET name = 'renamed' WHERE user_id = 'ada'").await;
    database.execute("DELETE FROM tokens WHERE user_id = 'ada'").await;

    let changes = watcher.changes(2).await;
    let kinds: Vec<_> = summaries(&changes);
    // When the first change was read, the token may have been deleted already.
    assert_eq!(kinds[1], (id.clone(), ChangeKind::Deleted));
    assert!([ChangeKind::Other, ChangeKind::Deleted].contains(&kinds[0].1) && kinds[0].0 == id);
}

#[tokio::test]
async fn a_rolled_back_transaction_is_not_sent_and_a_late_one_is() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let late = created(&mut root, ordinary()).await.token.unwrap().id;
    let mut watcher = Watcher::start_after_all(&mut root.clone(), &mut root).await;
    let mut early = replica.installation.database.connect().await;
    sqlx::query("BEGIN").execute(&mut early).await.unwrap();
    sqlx::query("UPDATE tokens SET name = 'late' WHERE user_id = 'ada'").execute(&mut early).await.unwrap();
    let database = &replica.installation.database;
    assert!(database.try_execute("UPDATE tokens SET name = repeat('x', 1000)").await.is_err());

    // Started later, committed earlier.
    let other = created(&mut root, ordinary()).await.token.unwrap().id;
    assert_eq!(summaries(&watcher.changes(1).await), [(other, ChangeKind::Created)]);
    sqlx::query("COMMIT").execute(&mut early).await.unwrap();

    assert_eq!(summaries(&watcher.changes(1).await), [(late, ChangeKind::Other)]);
}

#[tokio::test]
async fn heartbeats_come_when_nothing_happens_and_have_the_time() {
    let replica = Replica::start().await;
    let (mut watcher, _) = Watcher::start(&mut replica.root(), "").await;

    let mut times = Vec::new();
    for _ in 0..3 {
        let beat = watcher.next().await.unwrap();
        assert!(beat.changes.is_empty() && !beat.position.is_empty());
        assert!(beat.heartbeat_interval.unwrap().nanos > 0);
        times.push(nanos(beat.as_of_time.as_ref()));
    }

    assert!(times.is_sorted() && times[0] < times[2], "{times:?}");
}

#[tokio::test]
async fn a_watcher_gets_its_own_organization_and_details_only_with_the_read_scope() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut reader = replica.caller("acme", &["tokend:read"]).await;
    let mut verifier = replica.caller("acme", &["tokend:verify"]).await;
    let mut gateway = replica.caller("acme", &["tokend:verify:any", "tokend:read"]).await;
    let mut reader = Watcher::start_after_all(&mut reader, &mut root).await;
    let (mut verifier, _) = Watcher::start(&mut verifier, "").await;
    let (mut gateway, _) = Watcher::start(&mut gateway, "").await;

    let foreign = created_with(&mut root, "other", &[]).await.token.unwrap().id;
    let own = created_with(&mut root, "acme", &[]).await.token.unwrap().id;

    let received = reader.changes(1).await;
    assert_eq!(summaries(&received), [(own.clone(), ChangeKind::Created)]);
    assert_eq!(received[0].token.as_ref().unwrap().id, own);
    let received = verifier.changes(1).await;
    assert_eq!(summaries(&received), [(own.clone(), ChangeKind::Created)]);
    assert_eq!(received[0].token, None);
    let received = gateway.changes(2).await;
    assert_eq!(summaries(&received), [(foreign, ChangeKind::Created), (own, ChangeKind::Created)]);
    assert_eq!(received.iter().map(|change| change.token.is_some()).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_watcher_whose_credential_is_revoked_gets_no_more_changes() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["tokend:read"]).await;
    let (mut watcher, _) = Watcher::start(&mut replica.client(&made.secret), "").await;

    revoked(&mut root, &made.token.unwrap().id, "").await;

    check(&watcher.end().await, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_dropped_and_others_are_not() {
    let replica = Replica::start().await;
    let (slow, _) = Watcher::start(&mut replica.root(), "").await;
    let mut slow = slow;
    let (mut quick, _) = Watcher::start(&mut replica.root(), "").await;
    // Every change is a separate batch, large enough to fill the connection's buffers.
    let labels = format!(r#"'{{"a": "{}"}}'"#, "x".repeat(255));
    let database = &replica.installation.database;
    let insert = format!(
        "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time, created_by,
             durable_hash, mac, mac_key_id)
         SELECT gen_random_uuid(), 'default', repeat('u', 200), repeat('n', 100), '{{}}', {labels}, now(),
             'bootstrap', durable_hash, mac, mac_key_id FROM tokens, generate_series(1, 500) LIMIT 500"
    );
    // Nothing lists these tokens.
    database.drop_indexes().await;
    for _ in 0..100 {
        database.execute(insert.clone()).await;
        quick.changes(500).await;
    }

    check(&slow.end().await, Code::ResourceExhausted, "WATCHER_TOO_SLOW");
    database
        .execute("UPDATE tokens SET name = 'x' WHERE created_by = 'bootstrap' AND user_id = 'root'")
        .await;
    assert_eq!(quick.changes(1).await.len(), 1);
}

#[tokio::test]
async fn a_replica_that_stops_notifies_its_watchers() {
    let installation = Installation::new().await;
    let replica = installation.serve(installation.config()).await;
    let (mut watcher, _) = Watcher::start(&mut replica.root(), "").await;

    let ending = replica.shut_down();

    check(&watcher.end().await, Code::Unavailable, "SHUTTING_DOWN");
    ending.outcome().await.unwrap();
}

#[tokio::test]
async fn a_position_of_another_watch_is_refused() {
    let replica = Replica::start().await;
    let (watcher, _) = Watcher::start(&mut replica.root(), "").await;
    let mut acme = replica.caller("acme", &["tokend:read"]).await;

    for after in ["nonsense", &watcher.position] {
        let request = WatchTokensRequest { after: after.to_owned(), ..Default::default() };
        refused(acme.watch_tokens(request).await, Code::InvalidArgument, "INVALID_FIELD");
    }
}

#[tokio::test]
async fn a_revocation_is_sent_long_before_the_heartbeat() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    // The heartbeat is 15 s.
    config.bounds = Bounds { max_staleness: Duration::from_mins(1), outage_grace: Duration::ZERO };
    let replica = installation.serve(config).await;
    let mut root = replica.root();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(created(&mut root, ordinary()).await.token.unwrap().id);
    }
    let (mut watcher, _) = Watcher::start(&mut root.clone(), "").await;

    let all = async {
        for id in ids {
            revoked(&mut root, &id, "").await;
            let revocation = (id, ChangeKind::Revoked);
            while !summaries(&watcher.changes(1).await).contains(&revocation) {}
        }
    };

    in_time("five revocations", all).await;
}
