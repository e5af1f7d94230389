//! Plans are set, read, listed and deleted, and not deleted while a token that may be used names one.

use tokend::api::proto::limit::Kind;
use tokend::api::proto::{
    CalendarPeriod, CreateTokenRequest, Credits, DeletePlanRequest, GetPlanRequest, GetPolicyRequest, Grant,
    Limit, LimitSubject, ListPlansRequest, ListTokenEventsRequest, OutageBehavior, Plan, Policy, RateLimit,
    Refill, RefillMode, SetPlanRequest, UpdatePolicyRequest, UpdateTokenRequest,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::get::got;
use crate::support::client::{Client, created, mask, ordinary, revoked, rotation, texts};
use crate::support::plans::{plan, rate};
use crate::support::replica::Replica;
use crate::support::status::{fields, reason, refused};

async fn set(client: &mut Client, request: SetPlanRequest) -> Plan {
    client.set_plan(request).await.unwrap().into_inner().plan.unwrap()
}

fn named(name: &str) -> GetPlanRequest {
    GetPlanRequest { name: name.to_owned(), ..Default::default() }
}

fn deletion(name: &str) -> DeletePlanRequest {
    DeletePlanRequest { name: name.to_owned(), ..Default::default() }
}

fn with_plan(plan: &str) -> CreateTokenRequest {
    CreateTokenRequest { plan: plan.to_owned(), ..ordinary() }
}

fn credits(name: &str, refill: Option<Refill>) -> Limit {
    let kind = Some(Kind::Credits(Credits { initial: 1 << 53, refill }));
    Limit { name: name.to_owned(), per: LimitSubject::Organization.into(), kind }
}

#[tokio::test]
async fn a_plan_is_read_as_it_was_set_and_replaced_as_a_whole() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let admitting = RateLimit {
        requests: 1,
        period: Some(prost_types::Duration { seconds: 2_678_400, nanos: 0 }),
        burst: 0,
        on_outage: OutageBehavior::Admit.into(),
    };
    let user = LimitSubject::User.into();
    let refill = Refill { amount: 5, period: CalendarPeriod::Month.into(), mode: RefillMode::Add.into() };
    let limits = vec![
        rate("z", 10),
        Limit { name: "a".to_owned(), per: user, kind: Some(Kind::Rate(admitting)) },
        credits("credits", Some(refill)),
        credits("trial", None),
    ];

    let first = set(&mut root, plan("acme", "free", limits.clone())).await;

    let mut expected = limits;
    expected[1].kind = Some(Kind::Rate(RateLimit { burst: 1, ..admitting }));
    assert_eq!((&*first.organization_id, &*first.name, &first.limits), ("acme", "free", &expected));
    assert_eq!(first.updated_by, replica.installation.root_secret[5..27]);
    let mut reader = replica.caller("acme", &["tokend:read"]).await;
    assert_eq!(reader.get_plan(named("free")).await.unwrap().into_inner().plan, Some(first));
    let mut writer = replica.caller("acme", &["tokend:write"]).await;
    let second = set(&mut writer, plan("", "free", vec![rate("only", 1)])).await;
    assert_eq!((&*second.organization_id, &second.limits), ("acme", &vec![rate("only", 1)]));
    assert_eq!(reader.get_plan(named("free")).await.unwrap().into_inner().plan, Some(second));
    refused(reader.get_plan(named("gold")).await, Code::NotFound, "PLAN_NOT_FOUND");
    let revision = "SELECT revision FROM plans WHERE name = 'free'";
    assert_eq!(replica.installation.database.count(revision).await, 2);
}

#[tokio::test]
async fn each_field_of_a_plan_that_breaks_a_rule_is_named() {
    let replica = Replica::shared().await;
    let of = |kind| Limit { name: "x".to_owned(), per: LimitSubject::Token.into(), kind: Some(kind) };
    let period = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let over = (1 << 53) + 1;
    let rates =
        |requests, period, burst, on_outage| of(Kind::Rate(RateLimit { requests, period, burst, on_outage }));
    let refill = Some(Refill { amount: 0, period: 0, mode: 9 });
    let nine = (0..9).map(|number| rate(&format!("l{number}"), 1)).collect();
    for (limits, expected) in [
        (vec![], &["limits"][..]),
        (nine, &["limits"]),
        (vec![rate("a", 1), rate("a", 2)], &["limits"]),
        (vec![Limit::default()], &["limits[0].name", "limits[0].per", "limits[0].kind"]),
        (
            vec![rate("a", 1), rates(0, None, -1, 9)],
            &[
                "limits[1].rate.requests",
                "limits[1].rate.period",
                "limits[1].rate.burst",
                "limits[1].rate.on_outage",
            ],
        ),
        (
            vec![rates(over, period(1, 1), over, 0)],
            &["limits[0].rate.requests", "limits[0].rate.period", "limits[0].rate.burst"],
        ),
        (vec![rates(1, period(2_678_401, 0), 0, 0)], &["limits[0].rate.period"]),
        (vec![rates(1, period(2_678_400, 0), 1 << 53, 0)], &["limits[0].rate"]),
        (
            vec![of(Kind::Credits(Credits { initial: -1, refill }))],
            &[
                "limits[0].credits.initial",
                "limits[0].credits.refill.amount",
                "limits[0].credits.refill.period",
                "limits[0].credits.refill.mode",
            ],
        ),
    ] {
        let outcome = replica.root().set_plan(plan("", "free", limits)).await;
        assert_eq!(fields(&refused(outcome, Code::InvalidArgument, "INVALID_FIELD")), expected);
    }
    let outcome = replica.root().set_plan(plan("o\n", "Free", vec![rate("a", 1)])).await;
    let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["organization_id", "name"]);
}

#[tokio::test]
async fn plans_are_listed_in_pages_by_organization_and_name() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for (organization, name) in [("b", "x"), ("a", "z"), ("a", "y"), ("a", "w")] {
        set(&mut root, plan(organization, name, vec![rate("reads", 1)])).await;
    }
    let mut listing = ListPlansRequest { page_size: 3, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let page = root.list_plans(listing.clone()).await.unwrap().into_inner();
        names.extend(page.plans.into_iter().map(|plan| plan.organization_id + "/" + &plan.name));
        listing.page_token = page.next_page_token;
        if listing.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a/w", "a/y", "a/z", "b/x"]);

    let mut reader = replica.caller("b", &["tokend:read"]).await;
    let own = reader.list_plans(ListPlansRequest::default()).await.unwrap().into_inner();
    assert_eq!(own.plans.iter().map(|plan| &*plan.name).collect::<Vec<_>>(), ["x"]);
    let other = ListPlansRequest { organization_id: "a".to_owned(), ..Default::default() };
    refused(reader.list_plans(other.clone()).await, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
    let first = ListPlansRequest { page_size: 1, ..other };
    let page_token = root.list_plans(first.clone()).await.unwrap().into_inner().next_page_token;
    let wrong = ListPlansRequest { organization_id: String::new(), page_token, ..first };
    refused(root.list_plans(wrong).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn a_plan_is_deleted_only_when_all_its_tokens_have_ended() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let database = &replica.installation.database;
    for organization in ["default", "other"] {
        set(&mut root, plan(organization, "free", vec![rate("reads", 1)])).await;
    }
    let elsewhere = CreateTokenRequest { organization_id: "other".to_owned(), ..with_plan("free") };
    let elsewhere = created(&mut root, elsewhere).await.token.unwrap();
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(created(&mut root, with_plan("free")).await.token.unwrap().id);
    }
    let expired =
        "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE id = (SELECT id FROM tokens
                   WHERE plan = 'free' AND organization_id = 'default' LIMIT 1)";
    database.execute(expired).await;

    let status = refused(root.delete_plan(deletion("free")).await, Code::FailedPrecondition, "PLAN_IN_USE");
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["tokens"], "11");
    let first: Vec<_> = metadata["token_ids"].split(',').collect();
    assert_eq!(first.len(), 10);
    assert!(first.iter().all(|id| ids.iter().any(|made| made == id)), "{first:?}");
    assert!(status.message().starts_with("11 tokens "), "{}", status.message());
    assert_eq!(database.count("SELECT count(*) FROM tokens WHERE plan = 'free'").await, 13, "none lost it");

    for id in &ids {
        revoked(&mut root, id, "").await;
    }
    let deleted = root.delete_plan(deletion("free")).await.unwrap().into_inner();
    assert_eq!(deleted.ended_count, 12);
    for id in &ids {
        assert_eq!(got(&mut root, id).await.plan, "");
        let listing = ListTokenEventsRequest { token_id: id.clone(), page_size: 1, ..Default::default() };
        let events = root.list_token_events(listing).await.unwrap().into_inner().events;
        let change = &events[0].changes[0];
        assert_eq!((&*change.field, &*change.old_value, &*change.new_value), ("plan", "free", ""));
    }
    refused(root.get_plan(named("free")).await, Code::NotFound, "PLAN_NOT_FOUND");
    refused(root.delete_plan(deletion("free")).await, Code::NotFound, "PLAN_NOT_FOUND");
    assert_eq!(got(&mut root, &elsewhere.id).await.plan, "free", "of another organization");
    assert_eq!(database.count("SELECT count(*) FROM plan_limits").await, 1);
}

#[tokio::test]
async fn a_plan_is_not_deleted_under_a_token_that_is_created_meanwhile() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut won = [0, 0];
    for round in 0..40 {
        let name = format!("p{round}");
        set(&mut replica.root(), plan("", &name, vec![rate("reads", 1)])).await;
        let (mut creator, mut deleter) = (replica.root(), replica.root());
        let request = with_plan(&name);
        let (made, gone) = tokio::join!(creator.create_token(request), deleter.delete_plan(deletion(&name)));
        match (made, gone) {
            (Ok(_), Err(status)) => {
                assert_eq!(reason(&status).as_deref(), Some("PLAN_IN_USE"));
                won[0] += 1;
            }
            (Err(status), Ok(_)) => {
                assert_eq!(reason(&status).as_deref(), Some("PLAN_NOT_FOUND"));
                won[1] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let dangling = "SELECT count(*) FROM tokens t WHERE plan IS NOT NULL AND NOT EXISTS (SELECT FROM plans p
                    WHERE p.organization_id = t.organization_id AND p.name = t.plan)";
    assert_eq!(database.count(dangling).await, 0, "{won:?}");
}

fn policy(default_plan: &str, plan_required: bool) -> UpdatePolicyRequest {
    let default_plan = default_plan.to_owned();
    let policy = Some(Policy { plan_required, default_plan, ..Policy::default() });
    UpdatePolicyRequest { policy, ..Default::default() }
}

#[tokio::test]
async fn a_policy_names_the_plan_of_new_tokens_and_requires_one() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let before = created(&mut root, ordinary()).await.token.unwrap().id;
    for name in ["free", "gold"] {
        set(&mut root, plan("", name, vec![rate("reads", 1)])).await;
    }
    let own = CreateTokenRequest { scopes: texts(&["tokend:self"]), ..with_plan("gold") };
    let mut own = replica.client(&created(&mut root, own).await.secret);
    let unknown = root.update_policy(policy("none", false)).await;
    refused(unknown, Code::FailedPrecondition, "PLAN_NOT_FOUND");

    root.update_policy(policy("free", true)).await.unwrap();

    let stored = root.get_policy(GetPolicyRequest::default()).await.unwrap().into_inner().policy;
    assert_eq!(stored, policy("free", true).policy);
    assert_eq!(created(&mut root, ordinary()).await.token.unwrap().plan, "free");
    assert_eq!(created(&mut own, ordinary()).await.token.unwrap().plan, "free");
    assert_eq!(created(&mut own, with_plan("gold")).await.token.unwrap().plan, "gold");
    let made = created(&mut root, with_plan("gold")).await.token.unwrap();
    assert_eq!(made.plan, "gold");
    let administrator = CreateTokenRequest { scopes: texts(&["tokend:root"]), ..ordinary() };
    assert_eq!(created(&mut root, administrator).await.token.unwrap().plan, "", "no policy binds it");
    let none = UpdateTokenRequest { token_id: made.id, update_mask: mask(&["plan"]), ..Default::default() };
    let rotated = root.rotate_token(rotation(&before)).await.map(drop);
    for outcome in [root.update_token(none).await.map(drop), rotated] {
        let status = refused(outcome.map(tonic::Response::new), Code::FailedPrecondition, "POLICY_FORBIDS");
        assert_eq!(status.get_details_error_info().unwrap().metadata["rule"], "plan_required");
    }
    refused(root.delete_plan(deletion("free")).await, Code::FailedPrecondition, "PLAN_IN_USE");
    root.update_policy(policy("", true)).await.unwrap();
    refused(root.create_token(ordinary()).await, Code::FailedPrecondition, "POLICY_FORBIDS");
}

#[tokio::test]
async fn a_caller_with_a_grant_sets_and_deletes_no_plans() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    set(&mut root, plan("", "free", vec![rate("reads", 1)])).await;
    let lead = CreateTokenRequest {
        scopes: texts(&["tokend:write"]),
        grant: Some(Grant { all_users: true, ..Grant::default() }),
        ..with_plan("free")
    };
    let mut lead = replica.client(&created(&mut root, lead).await.secret);

    let outcome = lead.set_plan(plan("", "free", vec![rate("reads", 1_000)])).await.map(drop);
    let deleted = lead.delete_plan(deletion("free")).await.map(drop);
    for outcome in [outcome, deleted] {
        let status = refused(outcome.map(tonic::Response::new), Code::PermissionDenied, "GRANT_EXCEEDED");
        assert_eq!(status.get_details_error_info().unwrap().metadata["bound"], "plan");
    }
}
