//! Limits in trouble: the database cannot be asked or has changed, plans change and end under their tokens, and requests
//! that must spend nothing.

use std::time::{Duration, Instant};

use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, DisableTokenRequest, Verdict, VerifyRequest};
use tokio::task::JoinSet;

use super::plans::{
    admissions, admitted, balance, change, credits, limited, plan, rate, remaining, settles, severable, spent,
};
use crate::support::client::{created, forged, ordinary, question, texts, unknown_id};
use crate::support::eventually;
use crate::support::proxy::LinkState;
use crate::support::replica::Replica;

const VALID: Verdict = Verdict::Valid;

#[tokio::test]
async fn in_an_outage_a_replica_admits_the_whole_limit_once() {
    let (link, replica) = severable().await;
    let database = &replica.installation.database;
    plan(database, "open", &[("calls", "token", admitted(5))]).await;
    plan(database, "closed", &[("calls", "token", rate(5))]).await;
    plan(database, "paid", &[("calls", "token", admitted(5)), ("money", "token", credits(5))]).await;
    let mut root = replica.root();
    let [token, busy, closed, paid] = [
        limited(&mut root, "open").await,
        limited(&mut root, "open").await,
        limited(&mut root, "closed").await,
        limited(&mut root, "paid").await,
    ];
    for token in [&token, &busy, &closed, &paid] {
        settles(&mut root, database, token).await;
        assert_eq!(spent(&mut root, &token.secret, 1).await.verdict(), VALID);
    }

    link.set(LinkState::Cut);
    eventually("the outage is noticed", async || {
        root.verify(question(&closed.secret, &[])).await.is_err().then_some(())
    })
    .await;
    let answer = spent(&mut root, &token.secret, 2).await;
    assert_eq!((answer.verdict(), answer.limits[0].admitted_in_outage), (VALID, true));
    assert_eq!(admissions(&mut root, &token.secret, 20).await, 3, "the whole limit");
    for secret in [&closed.secret, &paid.secret] {
        assert!(root.verify(question(secret, &[])).await.is_err(), "it is not known");
    }
    // Longer than unused allowances stay in memory, while the plan is in use.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(spent(&mut root, &busy.secret, 0).await.verdict(), VALID);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(admissions(&mut root, &token.secret, 20).await, 0, "it was admitted once");

    link.set(LinkState::Open);
    let after = async || root.verify(question(&closed.secret, &[])).await.ok();
    assert_eq!(eventually("the database is asked", after).await.into_inner().verdict(), VALID);
}

#[tokio::test]
async fn a_plan_that_nobody_uses_for_a_while_is_still_admitted_in_an_outage() {
    let (link, replica) = severable().await;
    plan(&replica.installation.database, "open", &[("calls", "token", admitted(5))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "open").await;
    settles(&mut root, &replica.installation.database, &token).await;

    link.set(LinkState::Cut);
    eventually("the outage is noticed", async || {
        Some(spent(&mut root, &token.secret, 0).await.limits[0].admitted_in_outage).filter(|yes| *yes)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(admissions(&mut root, &token.secret, 20).await, 5);
}

#[tokio::test]
async fn a_change_of_what_a_limit_counts_holds_for_all_tokens_of_its_plan() {
    const TOKENS: usize = 500;
    let replica = Replica::start().await;
    let other = replica.installation.serve(replica.installation.config()).await;
    let database = &replica.installation.database;
    plan(database, "team", &[("calls", "token", rate(10))]).await;
    let mut creating = JoinSet::new();
    for part in 0..10 {
        let mut root = [&replica, &other][part % 2].root();
        creating.spawn(async move {
            let mut secrets = Vec::new();
            for _ in 0..TOKENS / 10 {
                let token = limited(&mut root, "team").await;
                assert_eq!(spent(&mut root, &token.secret, 1).await.verdict(), VALID);
                secrets.push(token.secret);
            }
            secrets
        });
    }
    let secrets = creating.join_all().await.concat();

    change(database, "team", "per = 'organization', burst = 100").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A lease later, from both replicas at once.
    let mut spending = JoinSet::new();
    for (number, secrets) in secrets.chunks(TOKENS / 10).enumerate() {
        let (mut root, secrets) = ([&replica, &other][number % 2].root(), secrets.to_vec());
        spending.spawn(async move {
            let mut valid = 0;
            for secret in secrets {
                valid += admissions(&mut root, &secret, 2).await;
            }
            valid
        });
    }
    let valid: usize = spending.join_all().await.into_iter().sum();
    assert!((50..=100).contains(&valid), "{valid} of 100");
}

#[tokio::test]
async fn a_plan_that_was_made_again_begins_anew() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    plan(database, "free", &[("calls", "organization", rate(5))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "free").await;
    assert_eq!(admissions(&mut root, &token.secret, 8).await, 5);

    let used = database.try_execute("DELETE FROM plans WHERE name = 'free'").await;
    assert!(used.is_err(), "a token names it");
    database.execute("UPDATE tokens SET plan = NULL WHERE plan = 'free'").await;
    database.execute("DELETE FROM plans WHERE name = 'free'").await;
    eventually("no limits", async || {
        (spent(&mut root, &token.secret, 1).await.verdict() == VALID).then_some(())
    })
    .await;
    plan(database, "free", &[("calls", "organization", rate(3))]).await;
    database.execute("UPDATE tokens SET plan = 'free' WHERE plan IS NULL AND name = 'laptop'").await;
    eventually("limits again", async || {
        let answer = spent(&mut root, &token.secret, 0).await;
        (remaining(&answer) == [("calls", 3)]).then_some(())
    })
    .await;
    assert_eq!(admissions(&mut root, &token.secret, 8).await, 3);
}

#[tokio::test]
async fn what_is_not_valid_spends_nothing_and_callers_spend_nothing() {
    let replica = Replica::start().await;
    plan(&replica.installation.database, "free", &[("calls", "organization", rate(10))]).await;
    let mut root = replica.root();
    let request = CreateTokenRequest { plan: "free".to_owned(), ..ordinary() };
    let disabled = created(&mut root, request.clone()).await;
    let id = disabled.token.unwrap().id;
    root.disable_token(DisableTokenRequest { token_id: id, ..Default::default() }).await.unwrap();
    let ttl = Some(Expiration::Ttl(prost_types::Duration { seconds: 1, nanos: 0 }));
    let expired = created(&mut root, CreateTokenRequest { expiration: ttl, ..request.clone() }).await;
    let networks = texts(&["10.0.0.0/8"]);
    let elsewhere =
        created(&mut root, CreateTokenRequest { allowed_cidrs: networks, ..request.clone() }).await;
    let scopes = texts(&["tokend:verify"]);
    let caller = created(&mut root, CreateTokenRequest { scopes, ..request }).await;

    let mut client = replica.client(&caller.secret);
    eventually("it expires", async || {
        let answer = spent(&mut client, &expired.secret, 0).await;
        (answer.verdict() == Verdict::Expired).then_some(())
    })
    .await;
    let from = VerifyRequest { client_ip: "192.0.2.1".to_owned(), ..question(&elsewhere.secret, &[]) };
    for _ in 0..4 {
        for (secret, verdict) in [
            (disabled.secret.as_str(), Verdict::Disabled),
            (&expired.secret, Verdict::Expired),
            (&forged(unknown_id()), Verdict::NotFound),
            ("tok_not_a_token", Verdict::Malformed),
        ] {
            let answer = spent(&mut client, secret, 3).await;
            assert_eq!((answer.verdict(), answer.limits.len()), (verdict, 0));
        }
        let answer = client.verify(from.clone()).await.unwrap().into_inner();
        assert_eq!((answer.verdict(), answer.limits.len()), (Verdict::IpNotAllowed, 0));
    }
    // The caller names the plan too, and was judged in each of its calls.
    assert_eq!(remaining(&spent(&mut client, &caller.secret, 0).await), [("calls", 10)]);
}

#[tokio::test]
async fn shares_are_void_once_the_server_has_changed() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    plan(database, "paid", &[("money", "token", credits(1_000))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "paid").await;
    for _ in 0..50 {
        assert_eq!(spent(&mut root, &token.secret, 1).await.verdict(), VALID);
    }

    // As restored from before: the balance is yesterday's, and no lease is known.
    database.execute("DELETE FROM server_mark; ").await;
    database.execute("DELETE FROM credit_leases").await;
    database.execute("UPDATE credit_balances SET balance = 7, leased = 0, debited = 993, returned = 0").await;
    eventually("the balance is what was restored", async || {
        let answer =
            root.verify(VerifyRequest { cost: Some(0), ..question(&token.secret, &[]) }).await.ok()?;
        (remaining(answer.get_ref()) == [("money", 7)]).then_some(())
    })
    .await;
    let mut valid = 0;
    for _ in 0..20 {
        valid += i64::from(spent(&mut root, &token.secret, 1).await.verdict() == VALID);
    }
    assert_eq!(valid, 7);
    eventually("nothing is returned that was not leased", async || {
        (balance(&replica).await == (0, 1_000, 0, 0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_left_of_a_rate_is_not_returned_to_another_server() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    plan(database, "free", &[("calls", "token", rate(1_000))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "free").await;
    assert_eq!(admissions(&mut root, &token.secret, 50).await, 50);

    // As restored from before: of the burst, 7 are left.
    let restore = "WITH mark AS (DELETE FROM server_mark)
        UPDATE rate_allowances SET full_time = lease_time + 993 * 2678400::bigint * 1000000000";
    database.execute(restore).await;
    eventually("the rate is what was restored", async || {
        let answer =
            root.verify(VerifyRequest { cost: Some(0), ..question(&token.secret, &[]) }).await.ok()?;
        (remaining(answer.get_ref()) == [("calls", 7)]).then_some(())
    })
    .await;
    assert_eq!(admissions(&mut root, &token.secret, 30).await, 7);
}
