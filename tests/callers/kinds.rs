//! A caller with `tokend:self` or with a grant acts for owners of its own kind alone: a person and a service account of
//! one id are two owners.

use tokend::api::proto::{
    CreateTokenRequest, CreateTokenResponse, DisableTokenRequest, DisableUserRequest, EnableTokenRequest,
    EnableUserRequest, Grant, ListTokensRequest, ListUsersRequest, OwnerKind, RevokeUserTokensRequest, Token,
    Verdict,
};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::support::client::{Client, created, of_owner, renaming, revocation, rotation, texts, verified};
use crate::support::replica::Replica;
use crate::support::status::refused;

const BOTH: [(OwnerKind, OwnerKind); 2] =
    [(OwnerKind::User, OwnerKind::Service), (OwnerKind::Service, OwnerKind::User)];

/// Returns the lead of a team, of this kind itself: for ada and the users of the team.
async fn lead(replica: &Replica, kind: OwnerKind) -> Client {
    let grant = Grant {
        scopes: texts(&["repo:*"]),
        users: texts(&["ada"]),
        user_prefixes: texts(&["team-"]),
        ..Grant::default()
    };
    let request =
        CreateTokenRequest { grant: Some(grant), ..of_owner("lead", kind, &["tokend:write", "tokend:read"]) };
    replica.client(&created(&mut replica.root(), request).await.secret)
}

fn id(made: &CreateTokenResponse) -> String {
    made.token.as_ref().unwrap().id.clone()
}

/// Asserts that a call exceeds the caller's users.
#[track_caller]
fn exceeds_users<T>(outcome: Result<Response<T>, Status>) {
    let status = refused(outcome, Code::PermissionDenied, "GRANT_EXCEEDED");
    assert_eq!(status.get_details_error_info().unwrap().metadata["bound"], "user");
}

/// Makes every call that changes a token.
async fn changes(client: &mut Client, id: &str) -> [Result<Response<()>, Status>; 5] {
    let disabling = DisableTokenRequest { token_id: id.to_owned(), ..Default::default() };
    let enabling = EnableTokenRequest { token_id: id.to_owned() };
    [
        client.update_token(renaming(id)).await.map(|_| Response::new(())),
        client.disable_token(disabling).await.map(|_| Response::new(())),
        client.enable_token(enabling).await.map(|_| Response::new(())),
        client.rotate_token(rotation(id)).await.map(|_| Response::new(())),
        client.revoke_token(revocation(id, "")).await.map(|_| Response::new(())),
    ]
}

/// Makes every call that changes all tokens of a user, none of which has ended.
async fn bulk_changes(
    client: &mut Client,
    user: &str,
    kind: OwnerKind,
) -> [Result<Response<i64>, Status>; 3] {
    let (user_id, owner_kind) = (user.to_owned(), kind.into());
    let disabling = DisableUserRequest { user_id: user_id.clone(), owner_kind, ..Default::default() };
    let enabling = EnableUserRequest { user_id: user_id.clone(), owner_kind, ..Default::default() };
    let revoking = RevokeUserTokensRequest { user_id, owner_kind, ..Default::default() };
    [
        client.disable_user(disabling).await.map(|answer| Response::new(answer.into_inner().disabled_count)),
        client.enable_user(enabling).await.map(|answer| Response::new(answer.into_inner().enabled_count)),
        client
            .revoke_user_tokens(revoking)
            .await
            .map(|answer| Response::new(answer.into_inner().revoked_count)),
    ]
}

async fn listed(client: &mut Client, request: ListTokensRequest) -> Vec<Token> {
    client.list_tokens(request).await.unwrap().into_inner().tokens
}

#[tokio::test]
async fn a_lead_issues_and_changes_tokens_of_its_own_kind_alone() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for (own, other) in BOTH {
        let mut lead = lead(&replica, own).await;
        for user in ["ada", "team-7"] {
            let made = created(&mut lead, of_owner(user, own, &["repo:read"])).await;
            for outcome in changes(&mut lead, &id(&made)).await {
                outcome.unwrap();
            }
            exceeds_users(lead.create_token(of_owner(user, other, &["repo:read"])).await);
            let foreign = created(&mut root, of_owner(user, other, &["repo:read"])).await;
            for outcome in changes(&mut lead, &id(&foreign)).await {
                exceeds_users(outcome);
            }
            assert_eq!(verified(&mut root, &foreign.secret, &[]).await.verdict(), Verdict::Valid);
        }
        exceeds_users(lead.create_token(of_owner("bob", own, &["repo:read"])).await);
    }
}

#[tokio::test]
async fn a_lead_ends_all_tokens_only_of_users_in_its_grant_and_of_its_own_kind() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for (own, other) in BOTH {
        let mut lead = lead(&replica, own).await;
        let mut kept = Vec::new();
        for (user, kind) in [("ada", other), ("team-7", other), ("bob", own), ("bob", other)] {
            let made = created(&mut root, of_owner(user, kind, &["repo:read"])).await;
            for outcome in bulk_changes(&mut lead, user, kind).await {
                exceeds_users(outcome);
            }
            kept.push(made);
        }
        for user in ["ada", "team-7"] {
            let made = created(&mut root, of_owner(user, own, &["repo:read"])).await;
            let counts = bulk_changes(&mut lead, user, own).await.map(|count| count.unwrap().into_inner());
            assert_eq!(counts, [1; 3], "{user} {own:?}");
            assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Revoked);
        }
        for made in &kept {
            assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Valid);
            root.revoke_token(revocation(&id(made), "")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_lead_neither_disables_nor_enables_a_user_with_a_token_that_it_could_not_issue() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut lead = lead(&replica, OwnerKind::User).await;
    let disabling = DisableUserRequest { user_id: "ada".to_owned(), ..Default::default() };
    let in_acme = DisableUserRequest { organization_id: "acme".to_owned(), ..disabling.clone() };
    let enabling = EnableUserRequest { user_id: "ada".to_owned(), ..Default::default() };
    let plain = created(&mut root, of_owner("ada", OwnerKind::User, &["repo:read"])).await;
    // Ended by anybody who has the user, but issued only by others.
    created(&mut root, of_owner("ada", OwnerKind::User, &["orders:read"])).await;

    assert_eq!(lead.disable_user(disabling.clone()).await.unwrap().into_inner().disabled_count, 2);
    let status = refused(lead.enable_user(enabling.clone()).await, Code::PermissionDenied, "GRANT_EXCEEDED");
    assert_eq!(status.get_details_error_info().unwrap().metadata["bound"], "scopes");
    assert_eq!(verified(&mut root, &plain.secret, &[]).await.verdict(), Verdict::Disabled);
    let of_root = EnableUserRequest { organization_id: "acme".to_owned(), ..enabling };
    assert_eq!(root.enable_user(of_root.clone()).await.unwrap().into_inner().enabled_count, 2);

    for (scope, reason) in [("tokend:write", "GRANT_EXCEEDED"), ("tokend:verify", "PRIVILEGED_TOKEN")] {
        let mighty = id(&created(&mut root, of_owner("ada", OwnerKind::User, &[scope])).await);
        refused(lead.disable_user(disabling.clone()).await, Code::PermissionDenied, reason);
        assert_eq!(verified(&mut root, &plain.secret, &[]).await.verdict(), Verdict::Valid, "{scope}");
        root.disable_user(in_acme.clone()).await.unwrap();
        refused(lead.disable_user(disabling.clone()).await, Code::PermissionDenied, reason);
        root.enable_user(of_root.clone()).await.unwrap();
        root.revoke_token(revocation(&mighty, "")).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_with_self_sees_and_changes_tokens_of_its_own_kind_alone() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for (own, other) in BOTH {
        let mine = created(&mut root, of_owner("ada", own, &["tokend:self", "repo:*"])).await;
        let foreign = created(&mut root, of_owner("ada", other, &["repo:read"])).await;
        let mut ada = replica.client(&mine.secret);

        let own_token = created(&mut ada, of_owner("ada", own, &["repo:read"])).await;
        exceeds_users(ada.create_token(of_owner("ada", other, &["repo:read"])).await);
        for outcome in changes(&mut ada, &id(&foreign)).await {
            refused(outcome, Code::NotFound, "TOKEN_NOT_FOUND");
        }
        let all = ListTokensRequest::default();
        let of_own = ListTokensRequest { owner_kind: own.into(), ..all.clone() };
        for request in [all.clone(), of_own] {
            let found = listed(&mut ada, request).await;
            assert!(found.iter().any(|token| token.id == id(&own_token)));
            assert!(found.iter().all(|token| token.owner_kind() == own), "{found:?}");
        }
        exceeds_users(ada.list_tokens(ListTokensRequest { owner_kind: other.into(), ..all }).await);
        let users = ListUsersRequest::default();
        refused(ada.list_users(users).await, Code::PermissionDenied, "SCOPE_MISSING");
        for outcome in bulk_changes(&mut ada, "ada", own).await {
            refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
        }
    }
}

#[tokio::test]
async fn a_lead_with_read_lists_tokens_and_users_of_its_organization_and_no_other() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut lead = lead(&replica, OwnerKind::User).await;
    for (organization, user, kind) in [
        ("acme", "ada", OwnerKind::Service),
        ("acme", "bob", OwnerKind::User),
        ("other", "ada", OwnerKind::User),
    ] {
        let request = CreateTokenRequest {
            organization_id: organization.to_owned(),
            ..of_owner(user, kind, &["repo:read"])
        };
        created(&mut root, request).await;
    }

    let all = ListUsersRequest::default();
    let users = lead.list_users(all.clone()).await.unwrap().into_inner().users;
    let found: Vec<_> = users.iter().map(|user| (&*user.user_id, user.owner_kind())).collect();
    assert_eq!(found, [("ada", OwnerKind::Service), ("bob", OwnerKind::User), ("lead", OwnerKind::User)]);
    let tokens = listed(&mut lead, ListTokensRequest::default()).await;
    assert_eq!(tokens.len(), 3);
    assert!(tokens.iter().all(|token| token.organization_id == "acme"));
    let elsewhere = ListUsersRequest { organization_id: "other".to_owned(), ..all };
    refused(lead.list_users(elsewhere).await, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
}
