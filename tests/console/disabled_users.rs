//! A user who is disabled while somebody has a form open: for that user, or as that user.

use tokend::api::proto::{DisableUserRequest, EnableUserRequest, OwnerKind};

use super::{Person, tokens_of};
use crate::support::client::{created, created_with, ordinary};
use crate::support::replica::Replica;

#[tokio::test]
async fn a_form_for_a_user_who_is_disabled_meanwhile_says_so_and_makes_no_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let nonce = person.new_form().await;
    let ada = DisableUserRequest { user_id: "ada".to_owned(), ..Default::default() };
    root.disable_user(ada).await.unwrap();

    let reply = person.generate(&nonce, "laptop", &[("expiration", "30d")]).await;

    assert_eq!(reply.status, 409, "{}", reply.body);
    assert!(reply.body.contains("The user is disabled"), "{}", reply.body);
    assert!(tokens_of(&replica, "ada").await.is_empty());
    let ada = EnableUserRequest { user_id: "ada".to_owned(), ..Default::default() };
    root.enable_user(ada).await.unwrap();
    // The form that was refused has made nothing, so it can be sent again.
    let (_, secret) = person.created(&nonce, "laptop", &[]).await;
    assert_eq!(tokens_of(&replica, "ada").await[0].id, secret[5..27]);
}

#[tokio::test]
async fn a_session_ends_with_its_user_and_its_open_form_does_nothing() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["tokend:read", "tokend:write"]).await;
    let id = made.token.unwrap().id;
    let person = Person::of(replica.console, &made.secret).await;
    let nonce = person.new_form().await;
    let ada = DisableUserRequest {
        organization_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        ..Default::default()
    };
    root.disable_user(ada).await.unwrap();

    let reply = person.generate(&nonce, "laptop", &[("expiration", "30d"), ("user", "bob")]).await;

    // To sign in again, which the secret of a disabled user does not do.
    assert_ne!(reply.status, 303, "{}", reply.body);
    assert!(reply.body.contains("<title>Sign in"), "{}", reply.body);
    assert!(!person.get("/tokens").await.body.contains(&id));
    assert_ne!(super::sign_in(replica.console, &made.secret).await.status, 303);
    assert_eq!(tokens_of(&replica, "ada").await.len() + tokens_of(&replica, "bob").await.len(), 1);
    let page = Person::root(&replica).await.get(&format!("/tokens/{id}")).await.body;
    assert!(page.contains("its user is disabled") && page.contains("User disabled"), "{page}");
}

#[tokio::test]
async fn pages_tell_a_service_account_from_a_person() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let request =
        tokend::api::proto::CreateTokenRequest { owner_kind: OwnerKind::Service.into(), ..ordinary() };
    let service = created(&mut root, request).await.token.unwrap().id;
    let user = created(&mut root, ordinary()).await.token.unwrap().id;
    let person = Person::root(&replica).await;

    assert!(person.get(&format!("/tokens/{service}")).await.body.contains("<dt>Service account</dt>"));
    assert!(person.get(&format!("/tokens/{user}")).await.body.contains("<dt>User</dt>"));
    let log = person.get("/audit").await.body;
    assert!(log.contains("(proven)"), "{log}");
}
