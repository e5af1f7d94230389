//! Seals over the audit log: later changes are found, and without a key nobody can seal or prevent
//! sealing.

use std::sync::Arc;

use tokend::secret::Keyring;
use tokend::store::{CheckedSeal, Finding, SealWalk, Store};
use tokio::sync::OnceCell;

use crate::support::client::{created, ordinary, revoked};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::{Installation, Replica, keyring, new_key};

fn store(replica: &Replica) -> Store {
    let store = Store::new(replica.installation.database.options(), 1);
    store.open();
    store
}

/// Checks every seal, as `tokend audit verify` does.
async fn checked(replica: &Replica, ring: &Keyring) -> Vec<CheckedSeal> {
    let (store, mut walk, mut found) = (store(replica), SealWalk::default(), Vec::new());
    while let Some(seal) = store.check_seal(&mut walk, ring).await.unwrap() {
        found.push(seal);
    }
    found
}

/// Returns the finding on each seal.
async fn findings(replica: &Replica, ring: &Keyring) -> Vec<Finding> {
    checked(replica, ring).await.into_iter().map(|seal| seal.finding).collect()
}

/// Returns the findings that are not fine.
async fn faults(replica: &Replica, ring: &Keyring) -> Vec<Finding> {
    findings(replica, ring).await.into_iter().filter(|finding| !finding.is_fine()).collect()
}

/// Writes events, and waits until one more genuine seal covers all events.
async fn seal_more(replica: &Replica, ring: &Keyring) {
    let before = checked(replica, ring).await.len();
    for _ in 0..4 {
        let id = created(&mut replica.root(), ordinary()).await.token.unwrap().id;
        revoked(&mut replica.root(), &id, "").await;
    }
    let events =
        replica.installation.database.count("SELECT max(id) FROM token_events WHERE id < 1000000").await;
    eventually("a seal covers all events", async || {
        let found = checked(replica, ring).await;
        let covers =
            |seal: &CheckedSeal| seal.finding == Finding::Genuine && seal.sealed.header.last_id >= events;
        (found.len() > before && found.iter().any(covers)).then_some(())
    })
    .await;
}

/// Starts a replica of an installation with two seals, of several events each.
async fn sealed() -> (Replica, Arc<Keyring>) {
    static MADE: OnceCell<Installation> = OnceCell::const_new();
    let made = MADE
        .get_or_init(async || {
            let replica = Replica::start().await;
            let installation = replica.installation.clone();
            for _ in 1..=2 {
                seal_more(&replica, &installation.config().keyring).await;
            }
            replica.shut_down().outcome().await.unwrap();
            installation
        })
        .await;
    let installation = Installation { database: made.database.copied().await, ..made.clone() };
    let config = installation.config();
    let ring = Arc::clone(&config.keyring);
    (installation.serve(config).await, ring)
}

/// Inserts a seal made without a key, after the newest, that covers every future event.
async fn put_in(database: &Database, sequence: &str, previous: &str) {
    let put_in = format!(
        "INSERT INTO audit_seals (sequence, first_id, last_id, events, events_hash, previous, seal_time, key_id, seal)
         SELECT {sequence}, last_id + 1, 4611686018427387904, 1, sha256('a'), {previous}, now(), key_id, sha256('b')
         FROM audit_seals WHERE last_id < 4611686018427387904 ORDER BY sequence DESC LIMIT 1"
    );
    database.execute(put_in).await;
}

#[tokio::test]
async fn an_untouched_log_is_genuine_and_new_events_are_sealed() {
    let (replica, ring) = sealed().await;

    let found = findings(&replica, &ring).await;

    assert!(found.len() >= 2 && found.iter().all(|finding| *finding == Finding::Genuine), "{found:?}");
    let unknown = findings(&replica, &keyring(&[&new_key()])).await;
    assert!(unknown.iter().all(|finding| *finding == Finding::UnknownKey), "{unknown:?}");
}

#[tokio::test]
async fn a_changed_removed_inserted_or_moved_event_is_found() {
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
        (
            "UPDATE token_events SET attribution = 'claimed' WHERE id = 3",
            "UPDATE token_events SET attribution = 'proven' WHERE id = 3",
        ),
        (
            "UPDATE token_events SET attribution = NULL WHERE id = 3",
            "UPDATE token_events SET attribution = 'proven' WHERE id = 3",
        ),
        (
            "UPDATE token_events SET owner_kind = 'service' WHERE id = 3",
            "UPDATE token_events SET owner_kind = 'user' WHERE id = 3",
        ),
        (
            "UPDATE token_events SET owner_kind = NULL WHERE id = 3",
            "UPDATE token_events SET owner_kind = 'user' WHERE id = 3",
        ),
        ("UPDATE token_events SET changes = '[]' WHERE id = 2", ""),
    ];

    for (tamper, undo) in undo_by {
        for statement in tamper.split("; ") {
            database.execute(statement).await;
        }
        assert_eq!(faults(&replica, &ring).await, [Finding::Altered], "{tamper}");
        for statement in undo.split("; ").filter(|statement| !statement.is_empty()) {
            database.execute(statement).await;
        }
    }
}

#[tokio::test]
async fn swapped_events_and_a_missing_seal_are_found() {
    let (replica, ring) = sealed().await;
    let database = &replica.installation.database;

    // Column by column, because the ids themselves cannot be written.
    let swapped = "UPDATE token_events e SET token_id = o.token_id, kind = o.kind, changes = o.changes,
             event_time = o.event_time
         FROM token_events o WHERE (e.id, o.id) IN ((3, 4), (4, 3))";
    assert_eq!(database.execute(swapped).await, 2);
    assert_eq!(faults(&replica, &ring).await, [Finding::Altered]);
    database.execute(swapped).await;
    assert_eq!(faults(&replica, &ring).await, []);

    database.execute("DELETE FROM audit_seals WHERE sequence = 1").await;
    assert_eq!(faults(&replica, &ring).await, [Finding::OutOfChain]);
}

#[tokio::test]
async fn every_column_of_a_seal_is_authenticated() {
    let (replica, ring) = sealed().await;
    let database = &replica.installation.database;
    for (change, finding) in [
        ("sequence = sequence + 1000000", Finding::Forged),
        ("last_id = last_id + 1", Finding::Forged),
        ("first_id = first_id + 1, events = 1", Finding::Forged),
        ("events = events - 1", Finding::Forged),
        ("events_hash = sha256('x')", Finding::Forged),
        ("previous = sha256('x')", Finding::Forged),
        ("seal_time = seal_time - interval '1 day'", Finding::Forged),
        ("seal = sha256('x')", Finding::Forged),
        ("key_id = '\\x0011223344556677'", Finding::UnknownKey),
        // New events that were deleted, with a seal that claims they were old.
        (
            "purge_time = now() + interval '1 day', purge_key_id = key_id, purge_mark = sha256('x')",
            Finding::PurgeForged,
        ),
        (
            "purge_time = now() + interval '1 day', purge_key_id = key_id, purge_mark = seal",
            Finding::PurgeForged,
        ),
    ] {
        let longest = "(SELECT sequence FROM audit_seals ORDER BY events DESC LIMIT 1)";
        database.execute("CREATE TABLE kept AS SELECT * FROM audit_seals").await;
        database.execute(format!("UPDATE audit_seals SET {change} WHERE sequence = {longest}")).await;
        if change.starts_with("purge") {
            let range = "SELECT first_id, last_id FROM audit_seals WHERE purge_time IS NOT NULL";
            database.execute("CREATE TABLE events AS SELECT * FROM token_events").await;
            database
                .execute(format!(
                    "DELETE FROM token_events USING ({range}) r WHERE id BETWEEN first_id AND last_id"
                ))
                .await;
        }

        let found = faults(&replica, &ring).await;

        assert!(found.contains(&finding), "{change}: {found:?}");
        database.execute("DELETE FROM audit_seals").await;
        database.execute("INSERT INTO audit_seals SELECT * FROM kept").await;
        database.execute("DROP TABLE kept").await;
        if change.starts_with("purge") {
            let again = "INSERT INTO token_events OVERRIDING SYSTEM VALUE SELECT * FROM events ON CONFLICT DO NOTHING";
            database.execute(again).await;
            database.execute("DROP TABLE events").await;
        }
    }
}

#[tokio::test]
async fn a_forged_seal_is_found_and_does_not_stop_sealing() {
    let (replica, ring) = sealed().await;
    let database = &replica.installation.database;
    for (sequence, previous) in
        [("sequence + 1", "seal"), ("sequence + 2", "sha256('x')"), ("9223372036854775807", "seal")]
    {
        put_in(database, sequence, previous).await;
    }

    seal_more(&replica, &ring).await;
    // The same for a replica that starts later, and finds them before the genuine ones.
    let later = replica.installation.serve(replica.installation.config()).await;
    drop(replica);
    seal_more(&later, &ring).await;

    assert_eq!(faults(&later, &ring).await, [Finding::Forged; 3]);
}

#[tokio::test]
async fn a_number_that_was_never_issued_seals_nothing_in_advance() {
    let (replica, ring) = sealed().await;
    let forged = "INSERT INTO token_events (id, event_time, kind, token_id, organization_id, user_id, actor, changes)
        OVERRIDING SYSTEM VALUE
        SELECT 4611686018427387904, event_time - interval '1 hour', kind, token_id, organization_id, user_id, actor,
            changes FROM token_events WHERE id = 2";
    replica.installation.database.execute(forged).await;

    seal_more(&replica, &ring).await;

    assert_eq!(faults(&replica, &ring).await, []);
    eventually("the metric reports it", async || (unsealed(&replica).await > 3_000.0).then_some(())).await;
}

/// Returns the metric of the oldest event without a seal, in seconds.
async fn unsealed(replica: &Replica) -> f64 {
    let (_, metrics) = crate::support::http::get(replica.http, "/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("tokend_audit_unsealed_seconds ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_age_of_unsealed_events_is_reported_between_seals_that_follow_each_other() {
    let (replica, _) = sealed().await;
    let database = &replica.installation.database;
    let waits = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.last_id > 12000 THEN PERFORM pg_advisory_xact_lock(7); END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER wait BEFORE INSERT ON audit_seals FOR EACH ROW EXECUTE FUNCTION wait();
        SELECT pg_advisory_lock(7)";
    let mut holder = database.connect().await;
    sqlx::raw_sql(waits).execute(&mut holder).await.unwrap();

    // Seals of 5,000 events: those before the third one cover all old events.
    let backlog =
        "INSERT INTO token_events (event_time, kind, token_id, organization_id, user_id, actor, changes)
        SELECT now() - CASE WHEN n <= 9000 THEN interval '2 hours' ELSE interval '0' END, 'updated',
            gen_random_uuid(), 'default', 'ada', 'bootstrap', '[]' FROM generate_series(1, 15000) AS n";
    database.execute(backlog).await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("a seal waits", async || (database.count(waiting).await > 0).then_some(())).await;

    let age = unsealed(&replica).await;
    assert!(age < 7_000.0, "{age} s, but the old events have a seal");
}

#[tokio::test]
async fn replicas_continue_each_others_seals() {
    let (one, ring) = sealed().await;
    let other = one.installation.serve(one.installation.config()).await;
    for _ in 0..2 {
        seal_more(&one, &ring).await;
        seal_more(&other, &ring).await;
    }
    drop(one);

    seal_more(&other, &ring).await;

    assert_eq!(faults(&other, &ring).await, []);
}

#[tokio::test]
async fn only_genuine_old_events_are_purged_and_marked() {
    let installation = Installation::new().await;
    let database = installation.database.clone();
    // Before the first seal: as if the event were 60 days old.
    database.execute("UPDATE token_events SET event_time = event_time - interval '60 days'").await;
    let config = installation.config();
    let ring = Arc::clone(&config.keyring);
    let replica = installation.serve(config).await;
    eventually("it is sealed", async || (!checked(&replica, &ring).await.is_empty()).then_some(())).await;
    seal_more(&replica, &ring).await;
    let store = store(&replica);
    let found = checked(&replica, &ring).await;
    let old = found.first().unwrap();
    let young = found.last().unwrap();

    assert!(store.purge_events(&young.sealed, &ring).await.is_err(), "young events were deleted");
    assert_eq!(store.purge_events(&old.sealed, &ring).await.unwrap(), 1);

    let now = findings(&replica, &ring).await;
    assert_eq!((now[0], faults(&replica, &ring).await.len()), (Finding::Purged, 0));
    assert!(store.purge_events(&old.sealed, &ring).await.is_err(), "twice");
    // The mark is valid only for its own seal and time, and without events.
    database
        .execute(
            "UPDATE audit_seals SET purge_time = purge_time + interval '1 s' WHERE purge_time IS NOT NULL",
        )
        .await;
    assert_eq!(faults(&replica, &ring).await, [Finding::PurgeForged]);
    database
        .execute(
            "UPDATE audit_seals SET purge_time = purge_time - interval '1 s' WHERE purge_time IS NOT NULL",
        )
        .await;
    let moved =
        "UPDATE audit_seals SET (purge_time, purge_key_id, purge_mark) = (SELECT purge_time + interval '1 h',
        purge_key_id, purge_mark FROM audit_seals WHERE purge_mark IS NOT NULL) WHERE sequence = 2";
    database.execute(moved).await;
    assert_eq!(faults(&replica, &ring).await, [Finding::PurgeForged]);
    database
        .execute("UPDATE audit_seals SET purge_time = NULL, purge_key_id = NULL, purge_mark = NULL WHERE sequence = 2")
        .await;
    let put_in = "INSERT INTO token_events (id, kind, token_id, organization_id, user_id, actor, changes)
        OVERRIDING SYSTEM VALUE SELECT 1, kind, token_id, organization_id, user_id, actor, changes
        FROM token_events LIMIT 1";
    database.execute(put_in).await;
    assert_eq!(faults(&replica, &ring).await, [Finding::Altered]);
}

#[tokio::test]
async fn an_unreadable_event_does_not_stop_sealing() {
    let (replica, ring) = sealed().await;
    let database = &replica.installation.database;
    // As a newer build, or an operator without constraints, might write them.
    let columns = ["event_time", "kind", "token_id", "organization_id", "user_id", "actor", "changes"];
    let unbind = "DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT conname FROM pg_constraint WHERE conrelid = 'token_events'::regclass AND contype = 'c' LOOP
            EXECUTE format('ALTER TABLE token_events DROP CONSTRAINT %I', name);
        END LOOP; END $$";
    database.execute(unbind).await;
    for column in columns {
        database.execute(format!("ALTER TABLE token_events ALTER COLUMN {column} DROP NOT NULL")).await;
    }
    for (column, value) in [
        ("event_time", "'infinity'"),
        ("event_time", "'-infinity'"),
        ("event_time", "'20000-01-01'"),
        ("event_time", "NULL"),
        ("kind", "NULL"),
        ("token_id", "NULL"),
        ("organization_id", "NULL"),
        ("user_id", "NULL"),
        ("actor", "NULL"),
        ("changes", "NULL"),
    ] {
        let put_in = format!(
            "WITH one AS (SELECT * FROM token_events ORDER BY id LIMIT 1)
             INSERT INTO token_events ({}) SELECT {} FROM one",
            columns.join(", "),
            columns.map(|name| if name == column { value } else { name }).join(", ")
        );
        assert_eq!(database.execute(put_in).await, 1, "{column} = {value}");
    }

    seal_more(&replica, &ring).await;
    assert_eq!(faults(&replica, &ring).await, []);
    database.execute("UPDATE token_events SET event_time = now() WHERE event_time = 'infinity'").await;
    assert_eq!(faults(&replica, &ring).await, [Finding::Altered]);
}
