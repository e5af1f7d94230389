//! Requests that name a limit that the plan does not have, or have no time to wait: what they may not do to others.

use std::time::Duration;

use tokend::api::proto::{GetUsageRequest, Verdict, VerifyRequest};
use tonic::{Code, Request, Status};

use super::plans::{admitted, limited, plan, rate, settles, severable, spent};
use crate::support::client::{Client, created, ordinary, question};
use crate::support::eventually;
use crate::support::http::get;
use crate::support::proxy::LinkState;
use crate::support::replica::Replica;

const VALID: Verdict = Verdict::Valid;

/// Verifies with a limit that no plan has.
async fn unknown(client: &mut Client, secret: &str) -> Status {
    let (secret, limit) = (secret.to_owned(), "none".to_owned());
    client.verify(VerifyRequest { secret, limit, ..Default::default() }).await.unwrap_err()
}

async fn outage_admissions(replica: &Replica) -> String {
    let (_, text) = get(replica.http, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix("tokend_limit_outage_admissions_total "));
    line.unwrap().to_owned()
}

#[tokio::test]
async fn a_limit_that_does_not_exist_takes_nothing_from_others_in_an_outage() {
    let (link, replica) = severable().await;
    let database = &replica.installation.database;
    plan(database, "open", &[("calls", "token", admitted(5))]).await;
    let mut root = replica.root();
    let [token, other] = [limited(&mut root, "open").await, limited(&mut root, "open").await];
    for token in [&token, &other] {
        settles(&mut root, database, token).await;
    }
    assert_eq!(unknown(&mut root, &token.secret).await.code(), Code::InvalidArgument);

    link.set(LinkState::Cut);
    eventually("it is not known whether the plan has such a limit now", async || {
        (unknown(&mut root, &token.secret).await.code() == Code::Unavailable).then_some(())
    })
    .await;
    for token in [&token, &other] {
        let answer = spent(&mut root, &token.secret, 1).await;
        assert_eq!((answer.verdict(), answer.limits[0].admitted_in_outage), (VALID, true));
    }
    link.set(LinkState::Open);
    eventually("it is known", async || {
        (unknown(&mut root, &token.secret).await.code() == Code::InvalidArgument).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_does_not_exist_counts_no_verification() {
    let replica = Replica::start().await;
    plan(&replica.installation.database, "free", &[("calls", "token", rate(50))]).await;
    let mut root = replica.root();
    let unlimited = created(&mut root, ordinary()).await;
    let token = limited(&mut root, "free").await;
    for (id, secret) in [(&token.id, &token.secret), (&unlimited.token.unwrap().id, &unlimited.secret)] {
        for _ in 0..3 {
            assert_eq!(unknown(&mut root, secret).await.code(), Code::InvalidArgument);
        }
        assert_eq!(root.verify(question(secret, &[])).await.unwrap().into_inner().verdict(), VALID);
        let counts = eventually("the count is written", async || {
            let request = GetUsageRequest { token_id: id.clone(), ..Default::default() };
            let points = root.get_usage(request).await.unwrap().into_inner().points;
            let counts: Vec<_> = points.into_iter().flat_map(|point| point.counts).collect();
            (!counts.is_empty()).then_some(counts)
        });
        let counts = counts.await;
        assert_eq!(counts.iter().map(|count| count.verifications).sum::<i64>(), 1, "{counts:?}");
    }
}

#[tokio::test]
async fn who_cannot_wait_is_not_admitted_while_the_database_answers() {
    let (link, replica) = severable().await;
    let database = &replica.installation.database;
    plan(database, "open", &[("calls", "token", admitted(5))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "open").await;
    settles(&mut root, database, &token).await;
    link.set(LinkState::Slow(Duration::from_millis(100)));
    // The last answer is no longer used.
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    let mut valid = 0;
    for _ in 0..10 {
        let mut request = Request::new(question(&token.secret, &[]));
        request.set_timeout(Duration::from_millis(50));
        let answer = root.verify(request).await.map(tonic::Response::into_inner);
        valid += usize::from(answer.is_ok_and(|answer| answer.verdict() == VALID));
    }
    for _ in 0..10 {
        let answer = root.verify(question(&token.secret, &[])).await.unwrap().into_inner();
        valid += usize::from(answer.verdict() == VALID);
    }
    assert!(valid <= 5, "{valid} of a limit of 5");
    assert_eq!(outage_admissions(&replica).await, "0");
}
