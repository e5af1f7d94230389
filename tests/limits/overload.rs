//! A limit that is used up is refused at any load, with few statements; and what large costs, changes of the plan, and other
//! replicas find of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokend::api::proto::{Verdict, VerifyRequest};
use tokend::verify::Bounds;
use tokio::task::JoinSet;

use super::plans::{Limited, change, credits, limited, plan, rate, rounds, settles, spent, verdicts};
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};

const VALID: Verdict = Verdict::Valid;

/// On each replica, and how often each calls.
const CALLERS: usize = 50;
const CALLS: usize = 40;

/// The shortest time between two statements for what is used up.
const PACE: Duration = Duration::from_millis(10);

/// Replicas whose link to the database is slow: each statement takes longer than what is remembered at least.
async fn slow(replicas: usize) -> (Vec<Replica>, Vec<Proxy>) {
    let installation = Installation::new().await;
    let (mut started, mut links) = (Vec::new(), Vec::new());
    for _ in 0..replicas {
        let link = Proxy::start(LinkState::Open).await;
        let mut config = installation.config();
        config.database = link.lead(&config.database);
        // More than all callers, who share one credential.
        config.limits.calls = 10_000;
        // The cache answers for all records, also if the feed is late on a busy machine.
        config.bounds = Bounds { max_staleness: Duration::from_secs(30), outage_grace: Duration::ZERO };
        started.push(installation.serve(config).await);
        links.push(link);
    }
    (started, links)
}

/// How often each answer came.
type Answers = HashMap<Result<Verdict, String>, usize>;

/// Calls from many callers at once on each replica.
async fn called(replicas: &[Replica], secret: &str) -> Answers {
    let mut callers = JoinSet::new();
    for replica in replicas {
        let client = replica.root();
        for _ in 0..CALLERS {
            let (mut client, secret) = (client.clone(), secret.to_owned());
            callers.spawn(async move {
                let mut answers = Vec::new();
                for _ in 0..CALLS {
                    let request =
                        VerifyRequest { secret: secret.clone(), cost: Some(1), ..Default::default() };
                    let answer = client.verify(request).await.map(tonic::Response::into_inner);
                    if let Ok(answer) = &answer {
                        // Credits that are never refilled have none.
                        let refused = answer.verdict() == Verdict::RateLimited && answer.limits.len() == 1;
                        assert!(!refused || answer.retry_after.is_some(), "{answer:?}");
                    }
                    answers.push(
                        answer.map(|answer| answer.verdict()).map_err(|status| status.message().to_owned()),
                    );
                }
                answers
            });
        }
    }
    let mut counted = Answers::new();
    for answer in callers.join_all().await.concat() {
        *counted.entry(answer).or_default() += 1;
    }
    counted
}

/// Spends what is used up, on replicas that begin at once.
async fn overloads(replicas: usize) {
    let (replicas, links) = slow(replicas).await;
    let database = &replicas[0].installation.database;
    let quick = "'rate', 50, 1, 20, false, NULL, NULL, NULL, NULL".to_owned();
    plan(database, "quick", &[("calls", "token", quick.clone())]).await;
    plan(database, "used-up", &[("calls", "token", rate(20))]).await;
    plan(database, "paid", &[("calls", "token", quick), ("money", "token", credits(30))]).await;
    let mut root = replicas[0].root();
    let mut tokens = Vec::new();
    for name in ["quick", "used-up", "paid"] {
        tokens.push(limited(&mut root, name).await);
    }
    // Their records stay in the cache.
    for replica in &replicas {
        for token in &tokens {
            settles(&mut replica.root(), database, token).await;
        }
    }
    for link in &links {
        link.set(LinkState::Slow(Duration::from_millis(20)));
    }
    for (Limited { secret, .. }, refused) in tokens.iter().zip([
        &[Verdict::RateLimited][..],
        &[Verdict::RateLimited],
        &[Verdict::RateLimited, Verdict::CreditsExhausted],
    ]) {
        let (before, began) = (rounds(&replicas).await, Instant::now());
        let answers = called(&replicas, secret).await;
        let (rounds, paces) =
            (rounds(&replicas).await - before, began.elapsed().as_nanos() / PACE.as_nanos());
        let known = |answer: &Result<Verdict, String>| {
            answer.as_ref().is_ok_and(|is| *is == VALID || refused.contains(is))
        };
        assert!(answers.keys().all(known), "{answers:?}");
        assert!(answers[&Ok(VALID)] >= 20, "{answers:?}");
        assert!(answers.contains_key(&Ok(refused[0])), "{answers:?}");
        let most = (paces + 10) * u128::try_from(replicas.len()).unwrap();
        assert!(rounds <= most, "{rounds} statements, at most {most}: {answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_limit_is_refused_whatever_the_load() {
    overloads(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_limit_is_refused_whatever_the_load_of_three_replicas() {
    overloads(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_with_room_is_valid_whatever_the_load() {
    let (replicas, links) = slow(1).await;
    let large = "'rate', 1000000, 1, 1000000, false, NULL, NULL, NULL, NULL".to_owned();
    plan(
        &replicas[0].installation.database,
        "large",
        &[("calls", "token", large), ("money", "token", credits(1_000_000))],
    )
    .await;
    let token = limited(&mut replicas[0].root(), "large").await;
    settles(&mut replicas[0].root(), &replicas[0].installation.database, &token).await;
    links[0].set(LinkState::Slow(Duration::from_millis(20)));
    let answers = called(&replicas, &token.secret).await;
    assert_eq!(answers, HashMap::from([(Ok(VALID), CALLERS * CALLS)]));
}

#[tokio::test]
async fn a_large_cost_that_does_not_fit_yet_takes_nothing() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let limit = "'rate', 20, 1, 40, false, NULL, NULL, NULL, NULL".to_owned();
    plan(database, "free", &[("calls", "token", limit)]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "free").await;
    assert_eq!(spent(&mut root, &token.secret, 40).await.verdict(), VALID);
    let full_time = "SELECT max(full_time) FROM rate_allowances";
    let full = database.count(full_time).await;

    // As often as it likes: it is admitted once it fits.
    let answer = eventually("it fits", async || {
        let answer = spent(&mut root, &token.secret, 30).await;
        if answer.verdict() == VALID {
            return Some(answer);
        }
        assert_eq!(answer.verdict(), Verdict::RateLimited);
        assert_eq!(database.count(full_time).await, full, "nothing was leased in vain");
        None
    });
    assert_eq!(answer.await.verdict(), VALID);
}

#[tokio::test]
async fn a_cost_above_the_balance_leaves_it_to_others() {
    let replica = Replica::start().await;
    let other = replica.installation.serve(replica.installation.config()).await;
    plan(&replica.installation.database, "paid", &[("money", "organization", credits(10))]).await;
    let (mut root, mut other) = (replica.root(), other.root());
    let token = limited(&mut root, "paid").await;
    for _ in 0..5 {
        assert_eq!(spent(&mut root, &token.secret, 11).await.verdict(), Verdict::CreditsExhausted);
        assert_eq!(spent(&mut other, &token.secret, 1).await.verdict(), VALID);
        assert_eq!(spent(&mut other, &token.secret, 1).await.verdict(), VALID);
    }
    assert_eq!(verdicts(&mut root, &token.secret, 1).await, [Verdict::CreditsExhausted]);
}

#[tokio::test]
async fn what_is_leased_under_a_new_revision_is_not_spent_under_the_old() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    plan(database, "paid", &[("money", "token", credits(100)), ("calls", "token", rate(100))]).await;
    let mut root = replica.root();
    let (first, second) = (limited(&mut root, "paid").await, limited(&mut root, "paid").await);
    assert_eq!(spent(&mut root, &first.secret, 1).await.verdict(), VALID);

    change(database, "paid", "per = 'organization'").await;
    assert_eq!(spent(&mut root, &second.secret, 1).await.verdict(), VALID);
    let of_second = |columns: &str, table: &str| {
        format!("SELECT {columns}::bigint FROM {table} WHERE subject = 't:{}'", second.id)
    };
    assert_eq!(
        database.count(of_second("count(*)", "credit_balances")).await,
        1,
        "it leased for the old plan"
    );
    assert_eq!(database.count(of_second("coalesce(sum(leased), 0)", "credit_balances")).await, 0);
    assert_eq!(database.count(of_second("coalesce(sum(debited - returned), 0)", "credit_balances")).await, 0);
    let owed = of_second("coalesce(sum(greatest(full_time - lease_time, 0)), 0)", "rate_allowances");
    assert_eq!(database.count(owed).await, 0, "the rate was returned");
}
