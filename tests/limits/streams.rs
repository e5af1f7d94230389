//! Limits of streams in an outage, and of 10,000 tokens at one plan's change.

use std::time::{Duration, Instant};

use tokend::api::proto::{Verdict, VerifyRequest, VerifyResponse, VerifyStreamRequest};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::plans::{admissions, admitted, change, credits, limited, plan, rate, rounds, settles, severable};
use crate::support::client::{Client, question};
use crate::support::eventually;
use crate::support::proxy::LinkState;
use crate::support::replica::Replica;

const VALID: Verdict = Verdict::Valid;

/// Asks for these secrets in one stream; returns the answers, and with what it ended before all were answered.
async fn streamed(client: &mut Client, secrets: &[&str]) -> (Vec<VerifyResponse>, Option<Status>) {
    let of = |secret: &&str| VerifyStreamRequest {
        request: Some(VerifyRequest { secret: (*secret).to_owned(), cost: Some(1), ..Default::default() }),
    };
    let requests: Vec<_> = secrets.iter().map(of).collect();
    let mut stream = client.verify_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut answers = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(answer)) => answers.push(answer.response.unwrap()),
            Ok(None) => return (answers, None),
            Err(status) => return (answers, Some(status)),
        }
    }
}

fn verdicts(answers: &[VerifyResponse]) -> Vec<Verdict> {
    answers.iter().map(VerifyResponse::verdict).collect()
}

#[tokio::test]
async fn a_stream_in_an_outage_spends_what_the_plan_admits_and_ends_at_what_is_not_known() {
    const REFUSED: Verdict = Verdict::RateLimited;
    let (link, replica) = severable().await;
    let database = &replica.installation.database;
    plan(database, "open", &[("calls", "token", admitted(3))]).await;
    plan(database, "closed", &[("calls", "token", rate(3))]).await;
    plan(database, "paid", &[("calls", "token", admitted(5)), ("money", "token", credits(5))]).await;
    let mut root = replica.root();
    let [open, closed, paid] = [
        limited(&mut root, "open").await,
        limited(&mut root, "closed").await,
        limited(&mut root, "paid").await,
    ];
    for token in [&open, &closed, &paid] {
        settles(&mut root, database, token).await;
    }
    let (answers, ended) = streamed(&mut root, &[&open.secret, &closed.secret, &paid.secret]).await;
    assert_eq!((verdicts(&answers), ended.is_none()), (vec![VALID; 3], true));

    link.set(LinkState::Cut);
    eventually("the outage is noticed", async || {
        root.verify(question(&closed.secret, &[])).await.is_err().then_some(())
    })
    .await;
    let (answers, ended) = streamed(&mut root, &[open.secret.as_str(); 5]).await;
    assert_eq!((verdicts(&answers), ended.is_none()), (vec![VALID, VALID, VALID, REFUSED, REFUSED], true));
    assert!(answers.iter().take(3).all(|answer| answer.limits[0].admitted_in_outage), "{answers:?}");
    for unknown in [&closed, &paid] {
        let (answers, ended) = streamed(&mut root, &[&open.secret, &unknown.secret, &open.secret]).await;
        assert_eq!(verdicts(&answers), [REFUSED], "what came before is answered");
        assert_eq!(ended.unwrap().code(), Code::Unavailable);
    }

    link.set(LinkState::Open);
    eventually("the database is asked", async || {
        let (answers, ended) = streamed(&mut root, &[&closed.secret, &paid.secret]).await;
        (ended.is_none() && verdicts(&answers) == [VALID, VALID]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tokens_change_with_their_plan_and_few_statements() {
    const TOKENS: usize = 10_000;
    const PARTS: usize = 40;
    let replica = Replica::start().await;
    let other = replica.installation.serve(replica.installation.config()).await;
    let replicas = [replica, other];
    let database = &replicas[0].installation.database;
    plan(database, "team", &[("calls", "token", rate(10))]).await;
    let mut creating = JoinSet::new();
    for part in 0..PARTS {
        let mut root = replicas[part % 2].root();
        creating.spawn(async move {
            let mut secrets = Vec::new();
            for _ in 0..TOKENS / PARTS {
                secrets.push(limited(&mut root, "team").await.secret);
            }
            secrets
        });
    }
    let secrets = creating.join_all().await.concat();
    let spend = async || {
        let mut spending = JoinSet::new();
        for (number, secrets) in secrets.chunks(TOKENS / PARTS).enumerate() {
            let (mut root, secrets) = (replicas[number % 2].root(), secrets.to_vec());
            spending.spawn(async move {
                let mut valid = 0;
                for secret in secrets {
                    valid += admissions(&mut root, &secret, 1).await;
                }
                valid
            });
        }
        spending.join_all().await.into_iter().sum::<usize>()
    };
    assert_eq!(spend().await, TOKENS, "each has its own limit");

    change(database, "team", "per = 'organization', burst = 100").await;
    // The promise: a lease.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, began) = (rounds(&replicas).await, Instant::now());
    let valid = spend().await;
    let (rounds, paces) = (rounds(&replicas).await - before, began.elapsed().as_millis() / 10);
    assert!((90..=100).contains(&valid), "{valid} of 100");
    assert!(rounds <= 2 * (paces + 10), "{rounds} statements of limits in {paces} times 10 ms");
}
