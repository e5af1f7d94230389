//! Credits that are added to a balance, and what a token's limits say.

use tokend::api::proto::{
    AddCreditsRequest, AddCreditsResponse, CreateTokenRequest, GetTokenLimitsRequest, GetTokenLimitsResponse,
    OwnerKind, RotateTokenRequest, Verdict,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::plans::{balance, credits, limited, plan, rate, spent};
use crate::support::client::{
    Client, created, created_with, new_request_id, ordinary, rotated, rotation, unknown_id,
};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

const VALID: Verdict = Verdict::Valid;

fn addition(limit: &str, amount: i64) -> AddCreditsRequest {
    AddCreditsRequest {
        plan: "paid".to_owned(),
        limit: limit.to_owned(),
        amount,
        request_id: new_request_id(),
        ..Default::default()
    }
}

async fn added(client: &mut Client, request: AddCreditsRequest) -> Result<i64, Status> {
    client.add_credits(request).await.map(|answer| answer.into_inner().balance)
}

async fn limits(client: &mut Client, id: &str) -> GetTokenLimitsResponse {
    let request = GetTokenLimitsRequest { token_id: id.to_owned() };
    client.get_token_limits(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn credits_are_added_once_for_each_request_on_any_replica() {
    let first = Replica::start().await;
    let installation = first.installation.clone();
    let second = installation.serve(installation.config()).await;
    plan(&installation.database, "paid", &[("money", "organization", credits(10))]).await;
    let request = addition("money", 7);
    let mut repeats = JoinSet::new();
    for replica in [&first, &second, &first, &second, &first, &second] {
        let (mut client, request) = (replica.root(), request.clone());
        repeats.spawn(async move { added(&mut client, request).await.unwrap() });
    }
    assert_eq!(repeats.join_all().await, [17; 6]);
    assert_eq!(balance(&first).await, (17, 0, 0, 0));

    let mut root = second.root();
    assert_eq!(added(&mut root, addition("money", 1)).await.unwrap(), 18);
    assert_eq!(added(&mut root, request.clone()).await.unwrap(), 17, "as it was answered before");
    let other = AddCreditsRequest { amount: 8, ..request.clone() };
    refused(root.add_credits(other).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
    // The id of another caller is another id.
    let writer = created_with(&mut root, "", &["tokend:write"]).await.secret;
    assert_eq!(added(&mut first.client(&writer), request).await.unwrap(), 25);
}

#[tokio::test]
async fn the_subject_is_what_the_limit_counts_and_exhausted_tokens_are_valid_again() {
    let first = Replica::start().await;
    let installation = first.installation.clone();
    let second = installation.serve(installation.config()).await;
    let kinds = [
        ("token", "token", credits(1)),
        ("user", "user", credits(1)),
        ("all", "organization", credits(1)),
        ("calls", "token", rate(100)),
    ];
    plan(&installation.database, "paid", &kinds).await;
    let mut root = first.root();
    let token = limited(&mut root, "paid").await;
    let graceful = RotateTokenRequest {
        grace_period: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..rotation(&token.id)
    };
    let successor = rotated(&mut root, graceful).await.token.unwrap().id;
    let mut clients = [first.root(), second.root()];
    assert_eq!(spent(&mut clients[0], &token.secret, 1).await.verdict(), VALID);
    for client in &mut clients {
        assert_eq!(spent(client, &token.secret, 1).await.verdict(), Verdict::CreditsExhausted);
    }

    let of_family = AddCreditsRequest { token_id: successor.clone(), ..addition("token", 5) };
    assert_eq!(added(&mut root, of_family).await.unwrap(), 5);
    let of_user = AddCreditsRequest { user_id: "ada".to_owned(), ..addition("user", 5) };
    assert_eq!(added(&mut root, of_user.clone()).await.unwrap(), 5);
    assert_eq!(added(&mut root, addition("all", 5)).await.unwrap(), 5);
    for client in &mut clients {
        eventually("the addition is known", async || {
            (spent(client, &token.secret, 1).await.verdict() == VALID).then_some(())
        })
        .await;
    }
    // A service account of the same name is another user.
    let of_service = AddCreditsRequest { owner_kind: OwnerKind::Service.into(), ..of_user };
    let of_service = AddCreditsRequest { request_id: new_request_id(), ..of_service };
    assert_eq!(added(&mut root, of_service).await.unwrap(), 6);

    let shown = eventually("all shares are returned", async || {
        let shown = limits(&mut root, &successor).await;
        (shown.limits[0].remaining == 3).then_some(shown)
    })
    .await;
    let left: Vec<_> =
        shown.limits.iter().map(|limit| (&*limit.name, limit.remaining, limit.limit)).collect();
    assert_eq!(shown.plan, "paid");
    assert_eq!(left[..3], [("token", 3, 0), ("user", 3, 0), ("all", 3, 0)]);
    assert!(shown.limits[3].reset_time.is_some() && shown.as_of_time.is_some());
}

#[tokio::test]
async fn an_addition_that_breaks_a_rule_names_the_field() {
    let replica = Replica::start().await;
    let kinds =
        [("token", "token", credits(1)), ("user", "user", credits(1)), ("all", "organization", credits(1))];
    let kinds = [&kinds[..], &[("calls", "token", rate(100))]].concat();
    plan(&replica.installation.database, "paid", &kinds).await;
    let mut root = replica.root();
    let (token, other) = (limited(&mut root, "paid").await.id, created(&mut root, ordinary()).await);
    let other = other.token.unwrap().id;
    let for_user = |user_id: &str, request| AddCreditsRequest { user_id: user_id.to_owned(), ..request };
    let for_token = |token_id: &str, request| AddCreditsRequest { token_id: token_id.to_owned(), ..request };
    for (request, field) in [
        (addition("all", 0), "amount"),
        (addition("all", -1), "amount"),
        (addition("all", i64::MIN), "amount"),
        (addition("all", (1 << 53) + 1), "amount"),
        (addition("all", 1 << 53), "amount"),
        (addition("calls", 1), "limit"),
        (addition("none", 1), "limit"),
        (addition("", 1), "limit"),
        (AddCreditsRequest { plan: String::new(), ..addition("all", 1) }, "plan"),
        (AddCreditsRequest { request_id: String::new(), ..addition("all", 1) }, "request_id"),
        (AddCreditsRequest { request_id: "1".to_owned(), ..addition("all", 1) }, "request_id"),
        (AddCreditsRequest { owner_kind: 99, ..for_user("ada", addition("user", 1)) }, "owner_kind"),
        (addition("token", 1), "token_id"),
        (addition("user", 1), "user_id"),
        (for_user("ada", addition("token", 1)), "token_id"),
        (for_user("ada", addition("all", 1)), "user_id"),
        (for_token(&token, addition("all", 1)), "token_id"),
        (for_token(&other, addition("token", 1)), "token_id"),
        (for_token("x", addition("token", 1)), "token_id"),
    ] {
        let status = refused(root.add_credits(request.clone()).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field], "{request:?}");
    }
    let of_nobody = for_token(&unknown_id().to_string(), addition("token", 1));
    refused(root.add_credits(of_nobody).await, Code::NotFound, "TOKEN_NOT_FOUND");
    let of_no_plan = AddCreditsRequest { plan: "none".to_owned(), ..addition("all", 1) };
    refused(root.add_credits(of_no_plan).await, Code::NotFound, "PLAN_NOT_FOUND");
    assert_eq!(balance(&replica).await.1, 0, "nothing was debited");
    assert_eq!(added(&mut root, addition("all", (1 << 53) - 1)).await.unwrap(), 1 << 53);
    refused(root.add_credits(addition("all", 1)).await, Code::InvalidArgument, "INVALID_FIELD");
}

#[tokio::test]
async fn a_refill_that_is_due_comes_before_an_addition_and_only_once() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let monthly = |adds| format!("'credits', NULL, NULL, NULL, NULL, 10, 100, 'month', {adds}");
    plan(
        database,
        "paid",
        &[("add", "organization", monthly(true)), ("replace", "organization", monthly(false))],
    )
    .await;
    let mut root = replica.root();
    for limit in ["add", "replace"] {
        assert_eq!(added(&mut root, addition(limit, 1)).await.unwrap(), 11);
    }
    database.execute("UPDATE credit_balances SET period_start = period_start - interval '1 month'").await;
    for (limit, expected) in [("add", 11 + 100 + 2), ("replace", 100 + 2)] {
        assert_eq!(added(&mut root, addition(limit, 2)).await.unwrap(), expected);
    }
    let token = limited(&mut root, "paid").await;
    assert_eq!(spent(&mut root, &token.secret, 1).await.verdict(), VALID);
    let left = eventually("all shares are returned", async || {
        let (left, spent, leased, _) = balance(&replica).await;
        (leased == 0).then_some((left, spent))
    });
    assert_eq!(left.await, (113 + 102 - 2, 2));
}

#[tokio::test]
async fn an_owner_sees_its_own_limits_and_no_others() {
    let replica = Replica::start().await;
    plan(&replica.installation.database, "paid", &[("calls", "token", rate(5))]).await;
    let mut root = replica.root();
    let token = limited(&mut root, "paid").await;
    let of = |user: &str, scopes: &[&str]| CreateTokenRequest {
        user_id: user.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..ordinary()
    };
    let own = created(&mut root, of("ada", &["tokend:self"])).await.secret;
    let foreign = created(&mut root, of("eve", &["tokend:self"])).await.secret;
    let unlimited = created(&mut root, ordinary()).await.token.unwrap().id;

    let shown = limits(&mut replica.client(&own), &token.id).await;
    assert_eq!((shown.limits[0].remaining, shown.limits[0].limit, shown.limits[0].reset_time), (5, 5, None));
    let none = limits(&mut root, &unlimited).await;
    assert_eq!((none.plan.as_str(), none.limits.len()), ("", 0));
    let request = GetTokenLimitsRequest { token_id: token.id };
    refused(replica.client(&foreign).get_token_limits(request).await, Code::NotFound, "TOKEN_NOT_FOUND");
    let outcome: Result<AddCreditsResponse, _> =
        replica.client(&own).add_credits(addition("calls", 1)).await.map(tonic::Response::into_inner);
    assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied);
}
