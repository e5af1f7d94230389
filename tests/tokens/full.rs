//! Verify with `CONSISTENCY_FULL`: the database decides, whatever is cached. These replicas poll
//! for changes four times a minute and are not notified, because the changes are made in psql.

use std::time::Duration;

use tokend::api::proto::{Consistency, Verdict, VerifyResponse};

use crate::support::client::{Client, created_with, question};
use crate::support::replica::{Installation, Replica};

async fn deaf_replica() -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.bounds.max_staleness = Duration::from_mins(1);
    installation.serve(config).await
}

async fn asked(client: &mut Client, secret: &str, consistency: Consistency) -> VerifyResponse {
    let mut request = question(secret, &[]);
    request.set_consistency(consistency);
    client.verify(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn full_consistency_sees_every_change_of_a_cached_record() {
    let replica = deaf_replica().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["a"]).await;
    let cached = asked(&mut root, &made.secret, Consistency::Bounded).await;
    assert_eq!(cached.verdict(), Verdict::Valid);

    let database = &replica.installation.database;
    for (change, verdict, name) in [
        ("UPDATE tokens SET name = 'first' WHERE scopes = '{a}'", Verdict::Valid, Some("first")),
        ("UPDATE tokens SET name = 'second' WHERE scopes = '{a}'", Verdict::Valid, Some("second")),
        (
            "UPDATE tokens SET revoke_time = now(), revoke_reason = '' WHERE scopes = '{a}'",
            Verdict::Revoked,
            Some("second"),
        ),
        ("DELETE FROM tokens WHERE scopes = '{a}'", Verdict::NotFound, None),
    ] {
        database.execute(change).await;
        // Twice: the second time the cache has the current record.
        for _ in 0..2 {
            let answer = asked(&mut root, &made.secret, Consistency::Full).await;
            assert_eq!(answer.verdict(), verdict, "{change}");
            assert_eq!(answer.token.as_ref().map(|token| token.name.as_str()), name);
        }
    }
}

#[tokio::test]
async fn one_query_covers_cached_and_uncached_records() {
    let replica = deaf_replica().await;
    let mut root = replica.root();
    let mut secrets = Vec::new();
    for number in 0..20 {
        let made = created_with(&mut root, "acme", &["a"]).await;
        if number % 2 == 0 {
            asked(&mut root, &made.secret, Consistency::Bounded).await;
        }
        secrets.push(made.secret);
    }

    let mut asking = tokio::task::JoinSet::new();
    for secret in secrets {
        let mut root = root.clone();
        asking.spawn(async move { asked(&mut root, &secret, Consistency::Full).await.verdict() });
    }

    let verdicts = asking.join_all().await;
    assert_eq!(verdicts, [Verdict::Valid; 20]);
}

/// A row with the revision of its cached record is not read; so each column must change the revision.
#[tokio::test]
async fn a_change_of_any_column_is_seen() {
    let replica = deaf_replica().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["a"]).await;
    let database = &replica.installation.database;
    let mut before = asked(&mut root, &made.secret, Consistency::Bounded).await;

    for change in [
        "organization_id = 'umbrella'",
        "user_id = 'grace'",
        "name = 'other'",
        "scopes = '{a,b}'",
        r#"labels = '{"team": "x"}'"#,
        "create_time = create_time - interval '1 day'",
        "created_by = 'cert:spiffe://acme/ops'",
        "expire_time = now() + interval '1 day'",
        "expire_time = NULL",
        "rotated_from = '00000000-0000-7000-8000-000000000001', family_id = '00000000-0000-7000-8000-000000000001', generation = 1",
        "allowed_cidrs = '{10.0.0.0/8}'",
        "allowed_cidrs = '{}'",
        "disable_time = now()",
        "user_disable_time = now()",
        "user_disable_time = NULL",
        "disable_time = NULL",
        "revoke_time = now(), revoke_reason = ''",
        "revoke_reason = 'lost'",
        "revoke_time = revoke_time + interval '1 second'",
        "mac = sha256('other')",
    ] {
        database.execute(format!("UPDATE tokens SET {change} WHERE user_id IN ('ada', 'grace')")).await;
        let after = asked(&mut root, &made.secret, Consistency::Full).await;
        assert_ne!((before.verdict(), before.token), (after.verdict(), after.token.clone()), "{change}");
        let again = asked(&mut root, &made.secret, Consistency::Full).await;
        assert_eq!((again.verdict(), &again.token), (after.verdict(), &after.token), "{change}");
        before = after;
    }
    assert_eq!(before.verdict(), Verdict::NotFound);
}

#[tokio::test]
async fn changes_by_replication_are_seen() {
    let replica = deaf_replica().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["a"]).await;
    asked(&mut root, &made.secret, Consistency::Bounded).await;

    let rename = "BEGIN; SET LOCAL session_replication_role = replica;
        UPDATE tokens SET name = 'replicated' WHERE user_id = 'ada'; COMMIT";
    sqlx::raw_sql(rename).execute(&mut replica.installation.database.connect().await).await.unwrap();

    for _ in 0..2 {
        let answer = asked(&mut root, &made.secret, Consistency::Full).await;
        assert_eq!(answer.token.unwrap().name, "replicated");
    }
}
