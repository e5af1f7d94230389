//! The grant of a token bounds what its holder issues, judged from its row inside the transaction.

use prost_types::Duration;
use sqlx::{AssertSqlSafe, Executor as _};
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, CreateTokenResponse, EnableTokenRequest, GetTokenRequest, Grant,
    ListTokenEventsRequest, UpdateTokenRequest,
};
use tokend::secret::TokenId;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::client::{
    Client, created, leaver, mask, ordinary, renaming, revocation, revoked, rotation, texts,
};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

const DAY: i64 = 86_400;

fn days(days: i64) -> Duration {
    Duration { seconds: days * DAY, nanos: 0 }
}

/// Returns the grant of the lead of a team: for the team's users, with scopes of the team, for at most 90 days.
fn of_lead() -> Grant {
    Grant {
        scopes: texts(&["repo:*"]),
        users: texts(&["ada"]),
        user_prefixes: texts(&["team-"]),
        longest_lifetime: Some(days(90)),
        networks: texts(&["10.0.0.0/8"]),
        may_grant_self: true,
        ..Grant::default()
    }
}

fn lead(grant: Option<Grant>) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        scopes: texts(&["tokend:write", "tokend:read"]),
        grant,
        ..ordinary()
    }
}

fn for_user(user: &str, scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest {
        user_id: user.to_owned(),
        scopes: texts(scopes),
        expiration: Some(Expiration::Ttl(days(30))),
        allowed_cidrs: texts(&["10.1.0.0/16"]),
        ..ordinary()
    }
}

fn regranting(id: &str, grant: Option<Grant>) -> UpdateTokenRequest {
    UpdateTokenRequest { token_id: id.to_owned(), grant, update_mask: mask(&["grant"]), ..Default::default() }
}

fn id(made: &CreateTokenResponse) -> String {
    made.token.as_ref().unwrap().id.clone()
}

/// Asserts that a creation exceeds this bound.
async fn exceeds(client: &mut Client, request: CreateTokenRequest, bound: &str) {
    let shown = format!("{request:?}");
    let status = refused(client.create_token(request).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    assert_eq!(status.get_details_error_info().unwrap().metadata["bound"], bound, "{shown}");
}

#[tokio::test]
async fn a_lead_issues_tokens_within_its_grant_and_no_others() {
    let replica = Replica::start().await;
    let mut lead = replica.client(&created(&mut replica.root(), lead(Some(of_lead()))).await.secret);

    for user in ["ada", "team-", "team-7"] {
        created(&mut lead, for_user(user, &["repo:read", "repo:x:*"])).await;
    }
    created(
        &mut lead,
        CreateTokenRequest {
            expiration: Some(Expiration::Ttl(days(90))),
            ..for_user("ada", &["repo:*", "tokend:self"])
        },
    )
    .await;

    for user in ["bob", "adam", "tea", "Team-1"] {
        exceeds(&mut lead, for_user(user, &[]), "user").await;
    }
    for scope in ["orders:read", "repo", "tokend:read"] {
        exceeds(&mut lead, for_user("ada", &["repo:read", scope]), "scopes").await;
    }
    for expiration in [Expiration::NoExpiration(true), Expiration::Ttl(days(91))] {
        let request = CreateTokenRequest { expiration: Some(expiration), ..for_user("ada", &[]) };
        exceeds(&mut lead, request, "lifetime").await;
    }
    for networks in [&[][..], &["10.0.0.0/7"], &["10.1.0.0/16", "192.0.2.0/24"]] {
        let request = CreateTokenRequest { allowed_cidrs: texts(networks), ..for_user("ada", &[]) };
        exceeds(&mut lead, request, "networks").await;
    }
    exceeds(&mut lead, for_user("ada", &["tokend:write"]), "grant").await;
    let other = CreateTokenRequest { organization_id: "other".to_owned(), ..for_user("ada", &[]) };
    refused(lead.create_token(other).await, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
}

#[tokio::test]
async fn who_cannot_issue_a_token_neither_rotates_nor_changes_nor_enables_it() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut lead = replica.client(&created(&mut root, lead(Some(of_lead()))).await.secret);
    let in_acme =
        |request: CreateTokenRequest| CreateTokenRequest { organization_id: "acme".to_owned(), ..request };

    for request in [
        for_user("bob", &[]),
        for_user("ada", &["orders:*"]),
        CreateTokenRequest { expiration: Some(Expiration::NoExpiration(true)), ..for_user("ada", &[]) },
    ] {
        let beyond = id(&created(&mut root, in_acme(request.clone())).await);
        let outcomes = [
            lead.update_token(renaming(&beyond)).await.map(drop),
            lead.rotate_token(rotation(&beyond)).await.map(drop),
        ];
        root.disable_token(tokend::api::proto::DisableTokenRequest {
            token_id: beyond.clone(),
            ..Default::default()
        })
        .await
        .unwrap();
        let enabling = EnableTokenRequest { token_id: beyond.clone() };
        for outcome in outcomes.into_iter().chain([lead.enable_token(enabling).await.map(drop)]) {
            refused(outcome.map(tonic::Response::new), Code::PermissionDenied, "GRANT_EXCEEDED");
        }
        let ended = lead.revoke_token(revocation(&beyond, "")).await;
        if request.user_id == "bob" {
            refused(ended, Code::PermissionDenied, "GRANT_EXCEEDED");
        } else {
            ended.unwrap();
        }
    }
    refused(lead.revoke_user_tokens(leaver("bob")).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    lead.revoke_user_tokens(leaver("team-1")).await.unwrap();
    // Among them is its own, with tokend:write.
    refused(lead.revoke_user_tokens(leaver("ada")).await, Code::PermissionDenied, "GRANT_EXCEEDED");
}

#[tokio::test]
async fn a_grant_that_no_token_can_have_is_refused() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let grant = |change: &dyn Fn(&mut Grant)| {
        let mut grant = of_lead();
        change(&mut grant);
        grant
    };
    let many = |number: usize| (0..number).map(|number| format!("{number}")).collect::<Vec<_>>();

    for (bad, field) in [
        (grant(&|grant| grant.scopes = texts(&["repo:*", "tokend:write"])), "grant"),
        (grant(&|grant| grant.scopes = texts(&["*"])), "grant.scopes[0]"),
        (grant(&|grant| grant.scopes = texts(&["a", "tokend:*"])), "grant.scopes[1]"),
        (grant(&|grant| grant.scopes = many(65)), "grant.scopes"),
        (grant(&|grant| grant.user_prefixes = texts(&["a", ""])), "grant.user_prefixes[1]"),
        (grant(&|grant| grant.users = texts(&["a\n"])), "grant.users[0]"),
        (grant(&|grant| grant.users = many(64)), "grant.users"),
        (grant(&|grant| grant.all_users = true), "grant.users"),
        (grant(&|grant| grant.networks = texts(&["10.0.0.1/8"])), "grant.networks[0]"),
        (grant(&|grant| grant.longest_lifetime = Some(days(0))), "grant.longest_lifetime"),
        (
            grant(&|grant| grant.longest_lifetime = Some(Duration { seconds: 1, nanos: 1 })),
            "grant.longest_lifetime",
        ),
        (grant(&|grant| grant.users = many(40).iter().map(|user| user.repeat(60)).collect()), "grant"),
    ] {
        let shown = format!("{bad:?}");
        let status =
            refused(root.create_token(lead(Some(bad))).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field], "{shown}");
    }
    let only_scopes = Grant { scopes: texts(&["a"]), ..Grant::default() };
    for (scopes, bad) in [
        (&["tokend:write", "tokend:root"][..], &only_scopes),
        (&["tokend:read", "a:b"], &only_scopes),
        (&["tokend:self"], &of_lead()),
        (&["tokend:self"], &Grant { may_grant_self: true, ..Grant::default() }),
    ] {
        let request = CreateTokenRequest { scopes: texts(scopes), ..lead(Some(bad.clone())) };
        let status = refused(root.create_token(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["grant"], "{scopes:?}");
    }
    let own = CreateTokenRequest { scopes: texts(&["tokend:self"]), ..lead(Some(only_scopes)) };
    created(&mut root, own).await;
    let plain = id(&created(&mut root, lead(None)).await);
    let unnamed = UpdateTokenRequest { grant: Some(of_lead()), ..renaming(&plain) };
    refused(root.update_token(unnamed).await, Code::InvalidArgument, "INVALID_FIELD");
}

#[tokio::test]
async fn an_empty_grant_allows_what_the_token_itself_has() {
    let replica = Replica::start().await;
    let request = CreateTokenRequest {
        scopes: texts(&["tokend:write", "repo:*"]),
        allowed_cidrs: texts(&["127.0.0.0/8"]),
        ..lead(Some(Grant::default()))
    };
    let mut lead = replica.client(&created(&mut replica.root(), request).await.secret);
    let own = |user: &str, scopes: &[&str]| CreateTokenRequest {
        allowed_cidrs: texts(&["127.0.0.1/32"]),
        ..for_user(user, scopes)
    };

    created(&mut lead, own("ada", &["repo:read"])).await;
    exceeds(&mut lead, own("bob", &[]), "user").await;
    exceeds(&mut lead, own("ada", &["orders:read"]), "scopes").await;
    exceeds(&mut lead, for_user("ada", &[]), "networks").await;
    exceeds(&mut lead, own("ada", &["tokend:self"]), "scopes").await;
}

#[tokio::test]
async fn every_user_is_chosen_by_a_field_of_its_own() {
    let replica = Replica::start().await;
    let grant = Grant { all_users: true, scopes: texts(&["repo:*"]), ..Grant::default() };
    let mut lead = replica.client(&created(&mut replica.root(), lead(Some(grant))).await.secret);

    created(&mut lead, for_user("anybody", &["repo:read"])).await;
    exceeds(&mut lead, for_user("anybody", &["orders:read"]), "scopes").await;
}

#[tokio::test]
async fn no_grant_is_wider_than_its_issuers_own() {
    let replica = Replica::start().await;
    let made = created(&mut replica.root(), lead(Some(of_lead()))).await;
    let mut lead = replica.client(&made.secret);
    let deputy = |change: &dyn Fn(&mut Grant)| {
        let mut grant = Grant { users: texts(&["team-7"]), user_prefixes: Vec::new(), ..of_lead() };
        change(&mut grant);
        CreateTokenRequest { grant: Some(grant), ..for_user("ada", &["tokend:write"]) }
    };

    for change in [
        &(|grant: &mut Grant| grant.scopes = texts(&["repo:read", "orders:read"])) as &dyn Fn(&mut Grant),
        &|grant| grant.users = texts(&["bob"]),
        &|grant| grant.user_prefixes = texts(&["tea"]),
        &|grant| {
            grant.users.clear();
            grant.all_users = true;
        },
        &|grant| grant.longest_lifetime = Some(days(91)),
        &|grant| grant.networks = texts(&["10.0.0.0/7"]),
    ] {
        exceeds(&mut lead, deputy(change), "grant").await;
    }
    let made_deputy = created(&mut lead, deputy(&|_| {})).await;
    let own = id(&made);
    refused(lead.update_token(regranting(&own, None)).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    let wider = Grant { user_prefixes: Vec::new(), all_users: true, users: Vec::new(), ..of_lead() };
    refused(lead.update_token(regranting(&own, Some(wider))).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    let removed = lead.update_token(regranting(&id(&made_deputy), None)).await;
    refused(removed, Code::PermissionDenied, "GRANT_EXCEEDED");
    let mut deputy = replica.client(&made_deputy.secret);
    let narrower = Grant { users: texts(&["team-7"]), user_prefixes: Vec::new(), ..of_lead() };
    // The deputy may not be used from here: its networks are those of the team.
    refused(
        deputy.update_token(regranting(&id(&made_deputy), Some(narrower))).await,
        Code::Unauthenticated,
        "CREDENTIAL_IP_NOT_ALLOWED",
    );
}

#[tokio::test]
async fn of_ten_grants_in_a_row_a_narrowed_or_revoked_one_holds_at_once() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let grant = || Grant { scopes: texts(&["repo:*"]), user_prefixes: texts(&["team-"]), ..Grant::default() };
    let request = |organization_id: &str| CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        user_id: "team-lead".to_owned(),
        scopes: texts(&["tokend:write"]),
        grant: Some(grant()),
        ..ordinary()
    };
    let plain = || CreateTokenRequest { scopes: texts(&["repo:read"]), grant: None, ..request("") };
    let mut chain = vec![created(&mut root, request("acme")).await];
    while chain.len() < 10 {
        let mut issuer = replica.client(&chain.last().unwrap().secret);
        chain.push(created(&mut issuer, request("")).await);
    }
    let mut clients: Vec<_> = chain.iter().map(|made| replica.client(&made.secret)).collect();
    let given = id(&created(&mut clients[4], plain()).await);

    let narrow = Grant { scopes: texts(&["repo:write"]), ..grant() };
    root.update_token(regranting(&id(&chain[4]), Some(narrow))).await.unwrap();

    exceeds(&mut clients[4], plain(), "scopes").await;
    exceeds(&mut clients[4], request(""), "grant").await;
    for outcome in [
        clients[4].update_token(renaming(&given)).await.map(drop),
        clients[4].rotate_token(rotation(&given)).await.map(drop),
        clients[4].update_token(renaming(&id(&chain[5]))).await.map(drop),
        clients[4].revoke_token(revocation(&id(&chain[5]), "")).await.map(drop),
    ] {
        refused(outcome.map(tonic::Response::new), Code::PermissionDenied, "GRANT_EXCEEDED");
    }
    // What was issued before stays.
    created(&mut clients[5], plain()).await;
    created(&mut clients[9], plain()).await;
    clients[3].revoke_token(revocation(&id(&chain[9]), "")).await.unwrap();
    revoked(&mut clients[3], &id(&chain[4]), "").await;
    let outcome = clients[4].create_token(plain()).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn the_grant_is_that_of_the_row_when_the_transaction_judges() {
    let replica = Replica::start().await;
    let made = created(&mut replica.root(), lead(Some(of_lead()))).await;
    let mut lead = replica.client(&made.secret);
    let database = &replica.installation.database;
    let row = uuid::Uuid::from_bytes(TokenId::parse(&id(&made)).unwrap().to_bytes());
    let mut holder = database.connect().await;
    let lock = format!("BEGIN; SELECT FROM tokens WHERE id = '{row}' FOR UPDATE");
    holder.execute(AssertSqlSafe(lock)).await.unwrap();

    let creating = tokio::spawn(async move { lead.create_token(for_user("team-7", &["repo:read"])).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock'";
    eventually("it waits", async || (database.count(waiting).await >= 1).then_some(())).await;
    let narrow = format!(r#"UPDATE tokens SET "grant" = '{{"users": ["ada"]}}' WHERE id = '{row}'; COMMIT"#);
    holder.execute(AssertSqlSafe(narrow)).await.unwrap();

    refused(creating.await.unwrap(), Code::PermissionDenied, "GRANT_EXCEEDED");
}

#[tokio::test]
async fn a_grant_is_shown_and_recorded_and_inherited_by_rotation() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let token_id = id(&created(&mut root, lead(None)).await);

    root.update_token(regranting(&token_id, Some(of_lead()))).await.unwrap();

    let get = GetTokenRequest { token_id: token_id.clone() };
    let found = root.get_token(get).await.unwrap().into_inner().token.unwrap();
    assert_eq!(found.grant, Some(of_lead()));
    let listing = ListTokenEventsRequest { token_id: token_id.clone(), ..Default::default() };
    let events = root.list_token_events(listing).await.unwrap().into_inner().events;
    let [change] = &events[0].changes[..] else { panic!("{events:?}") };
    assert_eq!((&*change.field, &*change.old_value), ("grant", ""));
    let recorded: serde_json::Value = serde_json::from_str(&change.new_value).unwrap();
    assert_eq!(recorded["longest_lifetime"], "7776000s");
    assert_eq!(recorded["user_prefixes"], serde_json::json!(["team-"]));
    let successor = root.rotate_token(rotation(&token_id)).await.unwrap().into_inner().token.unwrap();
    assert_eq!(successor.grant, Some(of_lead()));
}
