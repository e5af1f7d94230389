//! Moving to another Postgres by logical replication, with the commands of docs/operations.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokend::api::proto::{CreateTokenRequest, DisableUserRequest, Verdict};
use tokend::secret::Prefix;
use tokend::server::ServeError;
use tokend::store::{MigrateError, check, migrate};
use tonic::Code;

use crate::support::client::{created, ordinary, revoked, verified};
use crate::support::database::Database;
use crate::support::plans::{credits, plan};
use crate::support::program::or_skipped;
use crate::support::replica::Installation;
use crate::support::server::{Newer, Server};
use crate::support::status::refused;

/// Returns the commands between the markers in the guide.
fn documented() -> &'static str {
    let guide = include_str!("../../docs/operations.md");
    let (_, rest) = guide.split_once("<!-- logical:begin -->").unwrap();
    let (commands, _) = rest.split_once("<!-- logical:end -->").unwrap();
    commands.trim().trim_start_matches("```sh").trim_end_matches("```")
}

fn url(socket_dir: &Path) -> String {
    format!("postgres://tokend@localhost/tokend?host={}", socket_dir.display())
}

#[tokio::test]
async fn the_documented_commands_move_everything_to_the_new_server() {
    Box::pin(moves_to(Server::start().socket_dir())).await;
}

#[tokio::test]
async fn the_documented_commands_move_everything_to_newer_versions_too() {
    for variable in ["TOKEND_POSTGRES_17", "TOKEND_POSTGRES_18"] {
        let programs = std::env::var_os(variable).map(PathBuf::from);
        let Some(programs) = or_skipped(variable, programs) else { continue };
        Box::pin(moves_to(Newer::start(&programs).socket_dir())).await;
    }
}

/// Moves all data to the server whose socket is in this directory.
async fn moves_to(new: &Path) {
    let mut old = Server::start();
    Database::named(old.socket_dir(), "postgres").execute("ALTER SYSTEM SET wal_level = logical").await;
    old.stop();
    old.go_on();
    Database::named(new, "postgres").execute("CREATE DATABASE tokend").await;
    let before = Installation::on(Database::migrated_on(old.socket_dir()).await).await;
    let replica = before.serve(before.config()).await;
    replica.root().set_plan(plan("default", "free", vec![credits("money", 1)])).await.unwrap();
    let limited = CreateTokenRequest { plan: "free".to_owned(), ..ordinary() };
    let limited = created(&mut replica.root(), limited).await;
    assert_eq!(verified(&mut replica.root(), &limited.secret, &[]).await.verdict(), Verdict::Valid);
    let leaver = || CreateTokenRequest { user_id: "leaver".to_owned(), ..ordinary() };
    created(&mut replica.root(), leaver()).await;
    let disabled = DisableUserRequest { user_id: "leaver".to_owned(), ..Default::default() };
    replica.root().disable_user(disabled).await.unwrap();
    let (kept, ended) =
        (created(&mut replica.root(), ordinary()).await, created(&mut replica.root(), ordinary()).await);
    revoked(&mut replica.root(), &ended.token.unwrap().id, "").await;
    replica.shut_down().outcome().await.unwrap();

    let programs = format!(
        "{}:{}",
        std::path::Path::new(env!("CARGO_BIN_EXE_tokend")).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let moved = Command::new("sh")
        .args(["-eu", "-c", documented()])
        .env("PATH", programs)
        .envs([("OLD", url(old.socket_dir())), ("NEW", url(new))])
        .output()
        .unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));

    let after = Installation { database: Database::named(new, "tokend"), ..before };
    let replica = after.serve(after.config()).await;
    let mut root = replica.root();
    assert_eq!(verified(&mut root, &kept.secret, &[]).await.verdict(), Verdict::Valid);
    assert_eq!(verified(&mut root, &ended.secret, &[]).await.verdict(), Verdict::Revoked);
    let spent = verified(&mut root, &limited.secret, &[]).await;
    assert_eq!(spent.verdict(), Verdict::CreditsExhausted, "what was spent came along");
    refused(root.create_token(leaver()).await, Code::FailedPrecondition, "USER_DISABLED");
    // Each of these writes an event.
    let fresh = created(&mut root, ordinary()).await;
    revoked(&mut root, &kept.token.unwrap().id, "").await;
    assert_eq!(verified(&mut root, &fresh.secret, &[]).await.verdict(), Verdict::Valid);
}

#[tokio::test]
async fn a_sequence_behind_its_table_is_refused_with_the_repair() {
    let installation = Installation::new().await;
    let (database, route) = (&installation.database, installation.database.connect_settings());
    for (sequence, behind) in [
        ("token_events_id_seq", "SELECT setval('token_events_id_seq', 1, false)"),
        ("token_changes_sequence_seq", "SELECT setval('token_changes_sequence_seq', 1, false)"),
    ] {
        database.execute(behind).await;
        let mut refusals = vec![
            check(&route, &Prefix::default()).await.unwrap_err(),
            migrate(&route, &Prefix::default()).await.unwrap_err(),
        ];
        for migrates in [true, false] {
            let mut config = installation.config();
            config.migrate = migrates;
            let Err(ServeError::Database(refused)) = installation.launch(config).ended().await else {
                panic!("served")
            };
            refusals.push(refused);
        }
        for refused in refusals {
            assert!(
                matches!(refused, MigrateError::SequenceBehind { .. }) && !refused.is_transient(),
                "{refused:?}"
            );
            let printed = refused.to_string();
            let (_, mend) = printed.split_once("as its owner: ").unwrap();
            assert!(mend.contains(sequence), "{printed}");
            database.execute(mend).await;
            check(&route, &Prefix::default()).await.unwrap();
            database.execute(behind).await;
        }
        let mend = check(&route, &Prefix::default()).await.unwrap_err().to_string();
        database.execute(mend.split_once("as its owner: ").unwrap().1).await;
    }
    created(&mut installation.serve(installation.config()).await.root(), ordinary()).await;
}
