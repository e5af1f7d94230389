//! What the cache must not do: outlive an expiration, hide a new token, exceed its bound, or serve
//! a FULL request. And what is recorded besides: when tokens were last used.

use std::time::Duration;

use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{Consistency, CreateTokenRequest, ListTokensRequest, Token, Verdict, VerifyRequest};
use tokend::secret::TokenId;
use tokend::verify::Bounds;

use super::setup::{Made, NOW, becomes, cached, caught_up, is_valid, made, polled_twice, revoking, run};
use crate::support::client::{Client, created, forged, nanos, ordinary, question, unknown_id, verified};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};

#[tokio::test]
async fn a_cached_record_expires_at_its_instant_by_the_databases_clock() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let ttl = Expiration::Ttl(prost_types::Duration { seconds: 3, nanos: 0 });
    let response = created(&mut root, CreateTokenRequest { expiration: Some(ttl), ..ordinary() }).await;
    let expire_time = nanos(response.token.as_ref().unwrap().expire_time.as_ref());
    let token = Made::from(response);
    caught_up(&mut root, database, &token).await;
    // From here on only the cache can answer; the feed continues.
    let mut operator = database.connect().await;
    run(&mut operator, "BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE").await;

    let mut was = Verdict::Valid;
    eventually("its instant", async || {
        let before = i128::from(database.count(NOW).await) * 1_000;
        // On a busy machine the cache may become too old, and then nothing is known.
        let answer = root.verify(question(&token.secret, &[])).await.ok()?.into_inner();
        let after = i128::from(database.count(NOW).await) * 1_000;
        // The replica's estimate of that clock is ahead by at most the round trip of one poll, and
        // never behind.
        match answer.verdict() {
            Verdict::Valid => {
                assert!(before < expire_time && was == Verdict::Valid, "VALID past the instant");
            }
            Verdict::Expired => assert!(after > expire_time - 1_500_000_000, "EXPIRED long before it"),
            other => panic!("{other:?}"),
        }
        was = answer.verdict();
        (after > expire_time + 1_000_000_000 && was == Verdict::Expired).then_some(())
    })
    .await;
}

async fn asked_fully(client: &mut Client, token: &Made) -> Verdict {
    let consistency = Consistency::Full.into();
    let question = VerifyRequest { consistency, ..question(&token.secret, &[]) };
    client.verify(question).await.unwrap().into_inner().verdict()
}

#[tokio::test]
async fn full_consistency_sees_a_change_in_sql_at_once_with_any_staleness() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.bounds = Bounds { max_staleness: Duration::from_mins(1), outage_grace: Duration::ZERO };
    let replica = installation.serve(config).await;
    let mut root = replica.root();
    for _ in 0..10 {
        let token = cached(&mut root).await;
        assert_eq!(asked_fully(&mut root, &token).await, Verdict::Valid);

        installation.database.execute(revoking(&token)).await;

        assert_eq!(asked_fully(&mut root, &token).await, Verdict::Revoked);
    }
}

#[tokio::test]
async fn a_lookup_of_an_unknown_id_does_not_hide_its_later_token() {
    let installation = Installation::new().await;
    let one = installation.serve(installation.config()).await;
    let other = installation.serve(installation.config()).await;
    let (mut here, mut there) = (one.root(), other.root());
    let known = made(&mut here).await;
    let database = &installation.database;
    // Verified on both replicas while its row is missing: there is no other way to ask for an id
    // before its token exists.
    let away = TokenId::parse(&known.id).unwrap();
    let row = "CREATE TABLE put_by AS SELECT * FROM tokens WHERE user_id = 'ada'; DELETE FROM tokens
        WHERE user_id = 'ada'";
    run(&mut database.connect().await, row).await;
    for client in [&mut here, &mut there] {
        becomes(client, &known, Verdict::NotFound).await;
        assert_eq!(verified(client, &forged(away), &[]).await.verdict(), Verdict::NotFound);
    }

    database.execute("INSERT INTO tokens SELECT * FROM put_by").await;

    is_valid(&mut here, &known).await;
    is_valid(&mut there, &known).await;
    assert_eq!(verified(&mut there, &forged(unknown_id()), &[]).await.verdict(), Verdict::NotFound);
}

#[tokio::test]
async fn a_tiny_cache_gives_correct_answers_for_many_tokens() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    // Enough for a handful of tokens.
    config.cache_bytes = 4_096;
    let replica = installation.serve(config).await;
    let mut root = replica.root();
    let mut tokens = Vec::new();
    for _ in 0..60 {
        tokens.push(made(&mut root).await);
    }
    for token in &tokens {
        is_valid(&mut root, token).await;
    }
    for token in tokens.iter().step_by(3) {
        installation.database.execute(revoking(token)).await;
    }
    polled_twice(&installation.database).await;
    for _ in 0..2 {
        for (number, token) in tokens.iter().enumerate() {
            let verdict = if number % 3 == 0 { Verdict::Revoked } else { Verdict::Valid };
            assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), verdict);
        }
    }
}

async fn listed(client: &mut Client, token: &Made) -> Token {
    let listed = client.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
    listed.tokens.into_iter().find(|found| found.id == token.id).unwrap()
}

#[tokio::test]
async fn a_use_is_recorded_and_shown_and_never_goes_back() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let (used, idle) = (made(&mut root).await, made(&mut root).await);
    let before = i128::from(database.count(NOW).await) * 1_000;
    is_valid(&mut root, &used).await;
    // A wrong secret is not a use of the token.
    verified(&mut root, &forged(TokenId::parse(&idle.id).unwrap()), &[]).await;

    let shown = eventually("the use shows", async || listed(&mut root, &used).await.last_use_time).await;

    // The replica's clock differs from the database's by at most the round trip of one poll.
    assert!((nanos(Some(&shown)) - before).abs() < 20_000_000_000);
    assert_eq!(listed(&mut root, &idle).await.last_use_time, None);
    database.execute("UPDATE token_uses SET last_use_time = '2999-01-01'").await;
    is_valid(&mut root, &used).await;
    let flushed = "SELECT count(*) FROM token_uses WHERE last_use_time < '2999-01-01'";
    polled_twice(database).await;
    assert_eq!(database.count(flushed).await, 0);
}

#[tokio::test]
async fn uses_are_recorded_at_a_clean_stop() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.last_use_interval = Duration::from_hours(1);
    let replica = installation.serve(config).await;
    let mut root = replica.root();
    let used = made(&mut root).await;
    is_valid(&mut root, &used).await;
    let rows = "SELECT count(*) FROM token_uses";
    assert_eq!(installation.database.count(rows).await, 0);

    replica.shut_down().outcome().await.unwrap();

    // One row for the token, one for the caller's.
    assert_eq!(installation.database.count(rows).await, 2);
}

#[tokio::test]
async fn uses_that_could_not_be_recorded_are_once_the_table_is_back() {
    let replica = Replica::start().await;
    let (mut root, database) = (replica.root(), &replica.installation.database);
    let used = made(&mut root).await;
    is_valid(&mut root, &used).await;
    eventually("the first use shows", async || listed(&mut root, &used).await.last_use_time).await;
    let mut operator = database.connect().await;
    // Uses of the same token in several intervals are merged in one later flush.
    database
        .execute("ALTER TABLE token_uses ADD CONSTRAINT shut CHECK (last_use_time < '2000-01-01') NOT VALID")
        .await;
    for _ in 0..4 {
        is_valid(&mut root, &used).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let last = database.count(NOW).await;
    run(&mut operator, "ALTER TABLE token_uses DROP CONSTRAINT shut").await;

    let shown = format!(
        "SELECT count(*) FROM token_uses WHERE last_use_time > to_timestamp({last} / 1e6) - interval '1 s'"
    );
    eventually("the later uses", async || (database.count(shown.clone()).await == 2).then_some(())).await;
}
