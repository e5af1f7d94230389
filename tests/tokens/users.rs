//! The list of users: who has tokens, how many, and who is disabled, in pages of the same cost.

use tokend::api::proto::{
    CreateTokenRequest, DisableUserRequest, ListUsersRequest, ListUsersResponse, OwnerKind, User,
};
use tonic::Code;

use crate::support::client::{Client, created, created_with, ordinary, revoked};
use crate::support::replica::Replica;
use crate::support::status::refused;

async fn listed(client: &mut Client, request: ListUsersRequest) -> ListUsersResponse {
    client.list_users(request).await.unwrap().into_inner()
}

fn of(users: &[User]) -> Vec<(&str, &str, OwnerKind)> {
    users.iter().map(|user| (&*user.organization_id, &*user.user_id, user.owner_kind())).collect()
}

fn token_of(user_id: &str) -> CreateTokenRequest {
    CreateTokenRequest { user_id: user_id.to_owned(), organization_id: "acme".to_owned(), ..ordinary() }
}

#[tokio::test]
async fn users_are_listed_in_order_with_their_tokens_and_only_within_reach() {
    use OwnerKind::{Service, User};
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut reader = replica.caller("acme", &["tokend:read"]).await;
    created_with(&mut root, "other", &[]).await;
    for user_id in ["zoë", "bob", "bob"] {
        created(&mut root, token_of(user_id)).await;
    }
    let ended = created(&mut root, token_of("bob")).await.token.unwrap().id;
    revoked(&mut root, &ended, "").await;
    let service = CreateTokenRequest { owner_kind: OwnerKind::Service.into(), ..token_of("bob") };
    created(&mut root, service).await;
    let gone = DisableUserRequest {
        organization_id: "acme".to_owned(),
        user_id: "cy".to_owned(),
        ..Default::default()
    };
    root.disable_user(gone).await.unwrap();
    let own = listed(&mut reader, ListUsersRequest::default()).await.users;

    // The caller itself is the user `ada` of its organization.
    let expected = [
        ("acme", "ada", User),
        ("acme", "bob", Service),
        ("acme", "bob", User),
        ("acme", "cy", User),
        ("acme", "zoë", User),
    ];
    assert_eq!(of(&own), expected);
    assert_eq!((own[2].active_count, own[2].token_count), (2, 3));
    assert_eq!((own[3].active_count, own[3].token_count), (0, 0));
    assert!(own[3].disable_time.is_some() && own[2].disable_time.is_none());
    let all = listed(&mut root, ListUsersRequest::default()).await.users;
    let more = [("default", "root", User), ("other", "ada", User)];
    assert_eq!(of(&all), [&expected[..], &more].concat());
    let services = ListUsersRequest { owner_kind: Service.into(), ..Default::default() };
    assert_eq!(of(&listed(&mut root, services).await.users), expected[1..2]);
    let disabled = ListUsersRequest { only_disabled: true, ..Default::default() };
    assert_eq!(of(&listed(&mut root, disabled).await.users), expected[3..4]);
    let other = ListUsersRequest { organization_id: "other".to_owned(), ..Default::default() };
    refused(reader.list_users(other).await, Code::PermissionDenied, "ORGANIZATION_FORBIDDEN");
}

#[tokio::test]
async fn pages_show_each_user_once_and_their_tokens_fit_only_their_filters() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for number in 0..7 {
        created(&mut root, token_of(&format!("user-{number}"))).await;
    }
    let mut request =
        ListUsersRequest { organization_id: "acme".to_owned(), page_size: 2, ..Default::default() };
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = listed(&mut root, request.clone()).await;
        seen.extend(page.users.into_iter().map(|user| user.user_id));
        if page.next_page_token.is_empty() {
            break;
        }
        token.clone_from(&page.next_page_token);
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, (0..7).map(|number| format!("user-{number}")).collect::<Vec<_>>());

    for other in [
        ListUsersRequest { organization_id: String::new(), ..request.clone() },
        ListUsersRequest { only_disabled: true, ..request.clone() },
        ListUsersRequest { owner_kind: OwnerKind::User.into(), ..request.clone() },
    ] {
        let other = ListUsersRequest { page_token: token.clone(), ..other };
        refused(root.list_users(other).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
    let negative = ListUsersRequest { page_size: -1, ..Default::default() };
    refused(root.list_users(negative).await, Code::InvalidArgument, "INVALID_FIELD");
    let unknown = ListUsersRequest { owner_kind: 99, ..Default::default() };
    refused(root.list_users(unknown).await, Code::InvalidArgument, "INVALID_FIELD");
}
