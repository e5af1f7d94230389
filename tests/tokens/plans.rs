//! The plan of a token: who sets it, what keeps it, and what shows it.

use tokend::api::proto::{CreateTokenRequest, ListTokenEventsRequest, Token, UpdateTokenRequest, Verdict};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::get::got;
use crate::support::client::{
    Client, created, mask, new_request_id, ordinary, rotated, rotation, texts, verified,
};
use crate::support::database::Database;
use crate::support::replica::Replica;
use crate::support::status::{check, refused};

/// Makes a plan without limits.
pub(super) async fn plan(database: &Database, organization_id: &str, name: &str) {
    let insert = format!(
        "INSERT INTO plans (organization_id, name, updated_by, update_time)
         VALUES ('{organization_id}', '{name}', 'test', now())"
    );
    database.execute(insert).await;
}

fn with_plan(plan: &str) -> CreateTokenRequest {
    CreateTokenRequest { plan: plan.to_owned(), ..ordinary() }
}

fn change(id: &str, plan: &str) -> UpdateTokenRequest {
    UpdateTokenRequest {
        token_id: id.to_owned(),
        plan: plan.to_owned(),
        update_mask: mask(&["plan"]),
        ..Default::default()
    }
}

async fn changed(client: &mut Client, id: &str, plan: &str) -> Token {
    client.update_token(change(id, plan)).await.unwrap().into_inner().token.unwrap()
}

#[tokio::test]
async fn a_token_keeps_its_plan_until_an_administrator_changes_it() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for name in ["free", "gold"] {
        plan(&replica.installation.database, "default", name).await;
    }
    let made = created(&mut root, with_plan("free")).await;
    let id = made.token.unwrap().id;
    assert_eq!(verified(&mut root, &made.secret, &[]).await.token.unwrap().plan, "free");

    let successor = rotated(&mut root, rotation(&id)).await;
    let (secret, token) = (successor.secret, successor.token.unwrap());
    assert_eq!((&*token.plan, &token.family_id), ("free", &id), "a rotation keeps it");
    assert_eq!(changed(&mut root, &token.id, "gold").await.plan, "gold");
    let judged = verified(&mut root, &secret, &[]).await;
    assert_eq!((judged.verdict(), &*judged.token.unwrap().plan), (Verdict::Valid, "gold"));
    let mut administrator = replica.caller("default", &["tokend:write"]).await;
    assert_eq!(changed(&mut administrator, &token.id, "").await.plan, "");
    assert_eq!(got(&mut root, &token.id).await.plan, "");

    let listing = ListTokenEventsRequest { token_id: token.id, ..Default::default() };
    let events = root.list_token_events(listing).await.unwrap().into_inner().events;
    let of_plan = |event: &tokend::api::proto::TokenEvent| {
        event.changes.iter().find(|change| change.field == "plan").cloned()
    };
    let changes: Vec<_> = events.iter().filter_map(of_plan).collect();
    let changes: Vec<_> = changes.iter().map(|change| (&*change.old_value, &*change.new_value)).collect();
    assert_eq!(changes, [("gold", ""), ("free", "gold"), ("", "free")]);
}

#[tokio::test]
async fn a_plan_that_the_organization_does_not_have_is_refused() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    plan(&replica.installation.database, "other", "free").await;
    let id = created(&mut root, ordinary()).await.token.unwrap().id;

    let created = root.create_token(with_plan("free")).await;
    refused(created, Code::FailedPrecondition, "PLAN_NOT_FOUND");
    refused(root.update_token(change(&id, "free")).await, Code::FailedPrecondition, "PLAN_NOT_FOUND");
    assert_eq!(got(&mut root, &id).await.plan, "");
}

#[tokio::test]
async fn a_retry_with_another_plan_is_another_request() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    plan(&replica.installation.database, "default", "free").await;
    let first = CreateTokenRequest { request_id: new_request_id(), ..with_plan("free") };
    let made = created(&mut root, first.clone()).await;

    assert_eq!(created(&mut root, first.clone()).await, made);
    let without = CreateTokenRequest { plan: String::new(), ..first };
    refused(root.create_token(without).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn a_caller_that_manages_its_own_tokens_issues_only_its_own_plan() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for name in ["free", "gold"] {
        plan(&replica.installation.database, "default", name).await;
    }
    let own = |plan: &str| CreateTokenRequest { scopes: texts(&["tokend:self"]), ..with_plan(plan) };
    let mut unlimited = replica.client(&created(&mut root, own("")).await.secret);
    let mut limited = replica.client(&created(&mut root, own("free")).await.secret);

    let given = created(&mut limited, with_plan("")).await.token.unwrap();
    assert_eq!(given.plan, "free", "a limited token issues no unlimited ones");
    assert_eq!(created(&mut limited, with_plan("free")).await.token.unwrap().plan, "free");
    let plain = created(&mut unlimited, with_plan("")).await.token.unwrap();
    assert_eq!(plain.plan, "");
    for (client, outcome) in [
        ("limited", limited.create_token(with_plan("gold")).await.map(drop)),
        ("unlimited", unlimited.create_token(with_plan("gold")).await.map(drop)),
        ("change", limited.update_token(change(&given.id, "gold")).await.map(drop)),
        ("remove", limited.update_token(change(&given.id, "")).await.map(drop)),
        ("add", unlimited.update_token(change(&plain.id, "free")).await.map(drop)),
    ] {
        let status = outcome.expect_err(client);
        check(&status, Code::PermissionDenied, "GRANT_EXCEEDED");
        assert_eq!(status.get_details_error_info().unwrap().metadata["bound"], "plan", "{client}");
    }
    assert_eq!(got(&mut root, &given.id).await.plan, "free");

    // A rotation gives a secret with the limits of the rotated token.
    let [gold, free] = ["gold", "free"].map(with_plan);
    let (gold, free) =
        (created(&mut root, gold).await.token.unwrap(), created(&mut root, free).await.token.unwrap());
    for token in [&gold, &plain] {
        let status = limited.rotate_token(rotation(&token.id)).await.expect_err("beyond its plan");
        check(&status, Code::PermissionDenied, "GRANT_EXCEEDED");
        assert_eq!(status.get_details_error_info().unwrap().metadata["bound"], "plan");
    }
    assert_eq!(rotated(&mut limited, rotation(&free.id)).await.token.unwrap().plan, "free");
    assert_eq!(rotated(&mut unlimited, rotation(&gold.id)).await.token.unwrap().plan, "gold");
}
