//! Seals over the audit log: what was done to it afterwards is found.

use std::sync::Arc;

use tokend::secret::Keyring;
use tokend::store::{CheckedSeal, Finding, Store};

use crate::support::client::{created, ordinary, revoked};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica, keyring, new_key};

/// Checks every seal, as `tokend audit verify` does; returns what was found of each, to the first fault.
async fn findings(replica: &Replica, ring: &Keyring) -> Vec<Finding> {
    let store = Store::new(replica.installation.database.options(), 1);
    store.open();
    let (mut last, mut found): (Option<CheckedSeal>, _) = (None, Vec::new());
    while let Some(seal) = store.check_seal(last.as_ref(), ring).await.unwrap() {
        found.push(seal.finding);
        if !matches!(seal.finding, Finding::Genuine | Finding::Purged) {
            break;
        }
        last = Some(seal);
    }
    found
}

/// Starts a replica and has two seals made, of several events each.
async fn sealed() -> (Replica, Arc<Keyring>) {
    let installation = Installation::new().await;
    let config = installation.config();
    let ring = Arc::clone(&config.keyring);
    let replica = installation.serve(config).await;
    for seals in 1..=2 {
        for _ in 0..4 {
            let id = created(&mut replica.root(), ordinary()).await.token.unwrap().id;
            revoked(&mut replica.root(), &id, "").await;
        }
        eventually("a seal covers all events", async || {
            let count = |sql| replica.installation.database.count(sql);
            let all = count(
                "SELECT coalesce(max(last_id), 0) - (SELECT max(id) FROM token_events) FROM audit_seals",
            );
            (all.await == 0 && count("SELECT count(*) FROM audit_seals").await >= seals).then_some(())
        })
        .await;
    }
    (replica, ring)
}

#[tokio::test]
async fn what_nobody_touched_is_genuine_and_more_is_sealed_as_it_comes() {
    let (replica, ring) = sealed().await;

    let found = findings(&replica, &ring).await;

    assert!(found.len() >= 2 && found.iter().all(|finding| *finding == Finding::Genuine), "{found:?}");
    assert_eq!(findings(&replica, &keyring(&[&new_key()])).await, [Finding::UnknownKey]);
}

#[tokio::test]
async fn an_event_that_was_altered_removed_put_in_or_moved_is_found() {
    let (replica, ring) = sealed().await;
    let database = &replica.installation.database;
    let undo_by = [
        (
            "UPDATE token_events SET actor = 'bootstrap2' WHERE id = 3",
            "UPDATE token_events SET actor = (SELECT actor FROM token_events WHERE id = 2) WHERE id = 3",
        ),
        (
            "CREATE TABLE kept AS SELECT * FROM token_events WHERE id = 4; DELETE FROM token_events WHERE id = 4",
            "INSERT INTO token_events OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept",
        ),
        ("UPDATE token_events SET changes = '[]' WHERE id = 2", ""),
    ];

    for (tamper, undo) in undo_by {
        for statement in tamper.split("; ") {
            database.execute(statement).await;
        }
        assert_eq!(findings(&replica, &ring).await.last(), Some(&Finding::Altered), "{tamper}");
        for statement in undo.split("; ").filter(|statement| !statement.is_empty()) {
            database.execute(statement).await;
        }
    }
}

#[tokio::test]
async fn two_events_that_changed_places_and_a_seal_that_is_gone_are_found() {
    let (replica, ring) = sealed().await;
    let database = &replica.installation.database;

    // Column by column, since the numbers themselves cannot be written.
    let swapped = "UPDATE token_events e SET token_id = o.token_id, kind = o.kind, changes = o.changes,
             event_time = o.event_time
         FROM token_events o WHERE (e.id, o.id) IN ((3, 4), (4, 3))";
    assert_eq!(database.execute(swapped).await, 2);
    assert_eq!(findings(&replica, &ring).await.last(), Some(&Finding::Altered));
    database.execute(swapped).await;
    assert!(findings(&replica, &ring).await.iter().all(|finding| *finding == Finding::Genuine));

    database.execute("DELETE FROM audit_seals WHERE sequence = 1").await;
    assert_eq!(findings(&replica, &ring).await, [Finding::OutOfChain]);
}

#[tokio::test]
async fn old_events_go_in_whole_batches_and_their_seals_stay() {
    let (replica, ring) = sealed().await;
    let database = &replica.installation.database;
    let young = "SELECT purge_audit(now() - interval '29 days')";
    assert!(database.try_execute(young).await.is_err(), "young events were deleted");

    // As time would: the seals no longer fit, but what was purged is not looked at.
    database
        .execute("UPDATE token_events SET event_time = event_time - interval '60 days' WHERE id <= 5")
        .await;
    let purged = database.count("SELECT purge_audit(now() - interval '40 days')").await;

    let last = database.count("SELECT last_id FROM audit_seals WHERE sequence = 1").await;
    if last <= 5 {
        assert!(purged > 0);
        assert_eq!(findings(&replica, &ring).await[0], Finding::Purged);
    } else {
        // The first batch holds younger events too, and stays whole.
        assert_eq!(purged, 0);
    }
    database.execute("UPDATE token_events SET event_time = event_time - interval '60 days'").await;
    assert!(database.count("SELECT purge_audit(now() - interval '40 days')").await > 0);
    assert!(findings(&replica, &ring).await.iter().all(|finding| *finding == Finding::Purged));
    assert_eq!(database.count("SELECT count(*) FROM audit_seals WHERE purge_time IS NULL").await, 0);
}
