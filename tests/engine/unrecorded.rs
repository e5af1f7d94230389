//! However a change gets into the database, replicas hear of it; if it cannot be recorded, they
//! know that.

use std::time::Duration;

use tokend::api::proto::Verdict;
use tokend::secret::Prefix;
use tokend::server::ServeError;
use tokend::store::{MigrateError, check, migrate};
use tokend::verify::Bounds;
use tonic_health::ServingStatus;

use super::setup::{
    Made, NOW, WAKE, becomes, cached, caught_up_with, in_cache, made, reaches_the_cache, revoking, run,
    settled, settles, uuid,
};
use crate::support::client::verified;
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::{Installation, Replica, SERVICE};
use crate::support::server::Server;

/// Returns how many changes of a token were recorded.
async fn recorded(database: &Database, token: &Made) -> i64 {
    database.count(format!("SELECT count(*) FROM token_changes WHERE token_id = '{}'", uuid(token))).await
}

#[tokio::test]
async fn changes_of_a_subscription_are_seen_by_replicas_on_the_subscriber() {
    let (mut from, to) = (Server::start(), Server::start());
    Database::named(from.socket_dir(), "postgres").execute("ALTER SYSTEM SET wal_level = logical").await;
    from.stop();
    from.go_on();
    let publishing = Installation::on(Database::migrated_on(from.socket_dir()).await).await;
    let subscribing =
        Installation { database: Database::migrated_on(to.socket_dir()).await, ..publishing.clone() };
    let writer = publishing.serve(publishing.config()).await;
    let earlier = made(&mut writer.root()).await;
    publishing.database.execute("CREATE PUBLICATION tokend FOR TABLE tokens").await;
    let source = format!("host={} port=5432 user=tokend dbname=tokend", from.socket_dir().display());
    subscribing
        .database
        .execute(format!("CREATE SUBSCRIPTION tokend CONNECTION '{source}' PUBLICATION tokend"))
        .await;
    let rows = "SELECT count(*) FROM tokens";
    eventually("rows are copied", async || (subscribing.database.count(rows).await == 2).then_some(())).await;
    let reader = subscribing.serve(subscribing.config()).await;
    let (mut root, mut there) = (writer.root(), reader.root());
    in_cache(&mut there, &earlier).await;

    // A row that is inserted, updated, and deleted; alone and with others in one statement.
    let later = made(&mut root).await;
    eventually("a new one arrives", async || {
        let answer = there.verify(crate::support::client::question(&later.secret, &[])).await.ok()?;
        (answer.into_inner().verdict() == Verdict::Valid).then_some(())
    })
    .await;
    in_cache(&mut there, &later).await;
    let before = recorded(&subscribing.database, &later).await;
    let both = format!("{} OR id = '{}'", revoking(&earlier), uuid(&later));
    publishing.database.execute(both).await;
    becomes(&mut there, &earlier, Verdict::Revoked).await;
    becomes(&mut there, &later, Verdict::Revoked).await;
    assert_eq!(recorded(&subscribing.database, &later).await, before + 1);
    publishing.database.execute(format!("DELETE FROM tokens WHERE id = '{}'", uuid(&later))).await;
    eventually("a deleted one is gone", async || {
        let answer =
            there.verify(crate::support::client::question(&later.secret, &[])).await.ok()?.into_inner();
        (answer.verdict() == Verdict::NotFound).then_some(())
    })
    .await;
}

#[tokio::test]
async fn changes_of_a_role_in_replica_mode_are_recorded_once_and_seen() {
    let installation = Installation::new().await;
    let role = format!("copying_{}", std::process::id());
    installation.database.execute(format!("CREATE ROLE {role} LOGIN SUPERUSER")).await;
    installation.database.execute(format!("ALTER ROLE {role} SET session_replication_role = replica")).await;
    let mut config = installation.config();
    config.database.options = config.database.options.username(&role);
    let writer = installation.serve(config).await;
    let reader = installation.serve(installation.config()).await;
    let (mut root, mut there) = (writer.root(), reader.root());

    let token = made(&mut root).await;
    settles(&reader, &token).await;
    assert_eq!(recorded(&installation.database, &token).await, 1);
    crate::support::client::revoked(&mut root, &token.id, "").await;

    becomes(&mut there, &token, Verdict::Revoked).await;
    assert_eq!(recorded(&installation.database, &token).await, 2);
}

#[tokio::test]
async fn a_temporary_table_of_the_same_name_keeps_no_change_to_itself() {
    let replica = Replica::start().await;
    for mode in ["origin", "replica"] {
        let token = settled(&replica).await;
        let mut operator = replica.installation.database.connect().await;
        run(&mut operator, "CREATE TEMPORARY TABLE token_changes (LIKE token_changes INCLUDING ALL)").await;
        run(&mut operator, &format!("SET session_replication_role = {mode}; SET search_path = ''")).await;

        run(&mut operator, &revoking(&token).replace("tokens", "public.tokens")).await;

        reaches_the_cache(&replica, &token, Verdict::Revoked).await;
    }
}

#[tokio::test]
async fn disabled_triggers_are_named_and_meanwhile_no_stale_answer_is_given() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let mut watched = Vec::new();
    for _ in 0..3 {
        watched.push(settled(&replica).await);
    }

    // As pg_restore --disable-triggers does, before and after the rows.
    for (state, token) in [("DISABLE", &watched[0]), ("ENABLE", &watched[1])] {
        database.execute(format!("ALTER TABLE tokens {state} TRIGGER ALL")).await;
        database.execute(revoking(token)).await;
        becomes(&mut root, token, Verdict::Revoked).await;
        eventually("it is not ready", async || {
            (replica.health(SERVICE).await == ServingStatus::NotServing).then_some(())
        })
        .await;
    }

    let route = database.connect_settings();
    let mut refusals =
        vec![migrate(&route, &Prefix::default()).await, check(&route, &Prefix::default()).await];
    for migrates in [true, false] {
        let mut config = replica.installation.config();
        config.migrate = migrates;
        let Err(ServeError::Database(refused)) = replica.installation.launch(config).ended().await else {
            panic!("served")
        };
        refusals.push(Err(refused));
    }
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, MigrateError::TriggersOff { .. }) && !refused.is_transient(),
            "{refused:?}"
        );
        // The statements in the error message repair it.
        let output = refused.to_string();
        let (_, mend) = output.split_once("as its owner: ").unwrap();
        assert!(mend.contains("ENABLE REPLICA TRIGGER tokens_row_trigger"), "{output}");
        for statement in mend.split("; ") {
            database.execute(statement).await;
        }
        check(&route, &Prefix::default()).await.unwrap();
        database.execute("ALTER TABLE tokens ENABLE TRIGGER ALL").await;
    }
    database.execute("DROP TRIGGER tokens_update_trigger ON tokens").await;
    let gone = check(&route, &Prefix::default()).await.unwrap_err().to_string();
    assert!(gone.contains("restore the trigger tokens_update_trigger"), "{gone}");
}

#[tokio::test]
async fn a_replica_is_ready_again_once_triggers_are_on_and_knows_what_it_missed() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let token = settled(&replica).await;
    database.execute("ALTER TABLE tokens DISABLE TRIGGER tokens_update_trigger").await;
    eventually("it is not ready", async || {
        (replica.health(SERVICE).await == ServingStatus::NotServing).then_some(())
    })
    .await;

    // In the same transaction as the unrecorded change: no poll comes between.
    let mut operator = database.connect().await;
    let mend = "ALTER TABLE tokens ENABLE TRIGGER tokens_update_trigger";
    run(&mut operator, &format!("BEGIN; {}; {mend}; COMMIT", revoking(&token))).await;

    reaches_the_cache(&replica, &token, Verdict::Revoked).await;
    eventually("it is ready", async || {
        (replica.health(SERVICE).await == ServingStatus::Serving).then_some(())
    })
    .await;
    let kept = cached(&mut root).await;
    in_cache(&mut root, &kept).await;
}

#[tokio::test]
async fn the_first_poll_that_finds_triggers_off_and_the_first_that_finds_them_on_clear_the_cache() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    // The next poll after that one is 15 s later.
    config.bounds = Bounds { max_staleness: Duration::from_mins(1), outage_grace: Duration::ZERO };
    let replica = installation.serve(config).await;
    let (mut root, database) = (replica.root(), &installation.database);
    let (first, second, kept) = (settled(&replica).await, settled(&replica).await, settled(&replica).await);
    let turn = |state| format!("ALTER TABLE tokens {state} TRIGGER tokens_update_trigger");
    // Neither revocation is recorded.
    let off = format!("BEGIN; {}; {}; COMMIT", turn("DISABLE"), revoking(&first));
    let on = format!("BEGIN; {}; {}; COMMIT", revoking(&second), turn("ENABLE"));
    for (statements, token) in [(off, &first), (on, &second)] {
        // The poll that found triggers off has cleared the cache.
        in_cache(&mut root, token).await;
        run(&mut database.connect().await, &statements).await;
        let time = database.count(NOW).await;
        database.execute(WAKE).await;
        caught_up_with(&mut root, time, &kept).await;
        assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Revoked, "{statements}");
    }
}
