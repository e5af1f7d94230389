//! Revoking a token: final, audited once, and never missed by those who must know of it.

use tokend::api::proto::{Token, TokenState, Verdict};
use tokend::secret::TokenId;
use tonic::Code;
use uuid::Uuid;

use crate::support::client::{
    Client, created, created_with, nanos, ordinary, revocation, revoked, unknown_id, verified,
};
use crate::support::replica::Replica;
use crate::support::status::refused;

/// Returns the id as stored in Postgres.
fn uuid(id: &str) -> Uuid {
    Uuid::from_bytes(TokenId::parse(id).unwrap().to_bytes())
}

async fn token(client: &mut Client) -> String {
    created(client, ordinary()).await.token.unwrap().id
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let id = made.token.unwrap().id;
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Valid);

    let answer = revoked(&mut root, &id, "laptop lost").await;

    let token = answer.token.unwrap();
    assert_eq!((token.state(), &*token.revoke_reason), (TokenState::Revoked, "laptop lost"));
    assert!(nanos(token.revoke_time.as_ref()) > nanos(token.create_time.as_ref()));
    assert!(nanos(answer.effective_time.as_ref()) >= nanos(token.revoke_time.as_ref()));
    let judged = verified(&mut root, &made.secret, &[]).await;
    assert_eq!(judged.verdict(), Verdict::Revoked);
    // The revocation's response may have the use above; Verify's never does.
    assert_eq!(judged.token.unwrap(), Token { last_use_time: None, ..token });
}

#[tokio::test]
async fn a_second_revocation_keeps_the_first_time_and_reason() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = token(&mut root).await;
    let first = revoked(&mut root, &id, "first").await;

    let second = revoked(&mut root, &id, "second").await;

    assert_eq!(second.token, first.token);
    assert_eq!(second.token.unwrap().revoke_reason, "first");
    assert!(nanos(second.effective_time.as_ref()) > nanos(first.effective_time.as_ref()));
}

#[tokio::test]
async fn a_revocation_without_a_reason_gets_none_later() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = token(&mut root).await;
    revoked(&mut root, &id, "").await;

    let second = revoked(&mut root, &id, "afterthought").await;

    assert_eq!(second.token.unwrap().revoke_reason, "");
}

#[tokio::test]
async fn concurrent_revocations_agree_on_the_first_one() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let id = token(&mut root).await;

    let all: Vec<_> = (0..8)
        .map(|number| {
            let (mut root, id) = (root.clone(), id.clone());
            tokio::spawn(async move { revoked(&mut root, &id, &number.to_string()).await.token.unwrap() })
        })
        .collect();
    let mut seen = Vec::new();
    for one in all {
        seen.push(one.await.unwrap());
    }

    assert!(seen.iter().all(|token| *token == seen[0]), "{seen:?}");
    let events = "SELECT count(*) FROM token_events WHERE kind = 'revoked'";
    assert_eq!(replica.installation.database.count(events).await, 1);
}

#[tokio::test]
async fn an_unknown_id_is_not_found() {
    let replica = Replica::shared().await;
    let unknown = unknown_id();

    for id in [unknown.to_string(), "0".repeat(22)] {
        let outcome = replica.root().revoke_token(revocation(&id, "")).await;
        refused(outcome, Code::NotFound, "TOKEN_NOT_FOUND");
    }
}

#[tokio::test]
async fn an_expired_token_can_be_revoked() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = token(&mut root).await;
    let expire = format!(
        "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE id = '{}'",
        uuid(&id)
    );
    replica.installation.database.execute(expire).await;

    let answer = revoked(&mut root, &id, "").await;

    assert_eq!(answer.token.unwrap().state(), TokenState::Revoked);
}

#[tokio::test]
async fn every_change_is_logged_once_with_actor_changes_and_owner() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let writer = created_with(&mut root, "acme", &["tokend:write"]).await;
    let writer_id = writer.token.unwrap().id;
    let mut writer = replica.client(&writer.secret);
    let id = token(&mut writer).await;
    revoked(&mut root, &id, "first").await;
    revoked(&mut writer, &id, "again").await;

    let mut connection = replica.installation.database.connect().await;
    let events: Vec<(String, String, String, String)> = sqlx::query_as(
        "SELECT kind, organization_id, user_id, actor FROM token_events WHERE token_id = $1 ORDER BY id",
    )
    .bind(uuid(&id))
    .fetch_all(&mut connection)
    .await
    .unwrap();

    let event =
        |kind: &str, actor: &str| (kind.to_owned(), "acme".to_owned(), "ada".to_owned(), actor.to_owned());
    let root_id = &replica.installation.root_secret[5..27];
    assert_eq!(events, [event("created", &writer_id), event("revoked", root_id)]);
    let times = "SELECT count(*) FROM token_events JOIN tokens ON token_id = tokens.id
        WHERE event_time = CASE kind WHEN 'created' THEN create_time ELSE revoke_time END AND user_id <> 'root'";
    assert_eq!(replica.installation.database.count(times.replace("user_id", "tokens.user_id")).await, 3);
}

#[tokio::test]
async fn a_refused_change_leaves_no_trace() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut outsider = replica.caller("other", &["tokend:write"]).await;
    let id = token(&mut replica.root()).await;
    let before = database.count("SELECT count(*) FROM token_events").await;

    let outcome = outsider.revoke_token(revocation(&id, "")).await;

    refused(outcome, Code::NotFound, "TOKEN_NOT_FOUND");
    assert_eq!(database.count("SELECT count(*) FROM token_events").await, before);
    assert_eq!(database.count("SELECT count(*) FROM tokens WHERE revoke_time IS NOT NULL").await, 0);
}

#[tokio::test]
async fn replicas_learn_of_every_change_even_of_one_made_in_psql() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let id = token(&mut root).await;
    let uuid = uuid(&id);
    let changes = format!("SELECT count(*) FROM token_changes WHERE token_id = '{uuid}'");
    assert_eq!(database.count(changes.as_str()).await, 1, "the creation");

    revoked(&mut root, &id, "").await;
    assert_eq!(database.count(changes.as_str()).await, 2, "the revocation");
    database.execute(format!("UPDATE tokens SET name = 'by hand' WHERE id = '{uuid}'")).await;
    assert_eq!(database.count(changes.as_str()).await, 3, "an operator's update");
    database.execute(format!("DELETE FROM tokens WHERE id = '{uuid}'")).await;
    assert_eq!(database.count(changes.as_str()).await, 4, "an operator's deletion");

    let committed =
        "SELECT count(*) FROM token_changes WHERE pg_visible_in_snapshot(xid, pg_current_snapshot())";
    assert!(database.count(committed).await >= 4, "each bears the transaction that made it");
}

#[tokio::test]
async fn a_truncation_is_refused_because_replicas_would_miss_it() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;

    let refused = database.try_execute("TRUNCATE tokens").await;

    assert!(refused.is_err());
    assert_eq!(database.count("SELECT count(*) FROM tokens").await, 1);
}
