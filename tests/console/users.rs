//! The pages of users: who has tokens, and disabling and enabling a user or a service account.

use tokend::api::proto::{
    CreateTokenRequest, DisableUserRequest, Grant, ListTokenEventsRequest, OwnerKind, TokenEventKind, Verdict,
};

use super::{Person, done};
use crate::support::client::{Client, created, of_owner, texts, verified};
use crate::support::replica::Replica;

/// Returns the row of a user on a page.
fn row<'page>(page: &'page str, user: &str) -> &'page str {
    let name = format!("<bdi>{user}</bdi></a></th>");
    let found = page.split("<tr role=\"row\">").find(|row| row.contains(&name));
    found.unwrap_or_else(|| panic!("no {user} on {page}"))
}

async fn verdict(root: &mut Client, secret: &str) -> Verdict {
    verified(root, secret, &[]).await.verdict()
}

#[tokio::test]
async fn the_list_says_who_has_tokens_and_who_is_disabled() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    for kind in [OwnerKind::User, OwnerKind::Service, OwnerKind::User] {
        created(&mut root, of_owner("billing", kind, &[])).await;
    }
    let ada = DisableUserRequest {
        organization_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        reason: "on leave".to_owned(),
        ..Default::default()
    };
    root.disable_user(ada).await.unwrap();

    let page = person.get("/users?organization=acme").await.body;

    let ada = row(&page, "ada");
    assert!(ada.contains("Disabled") && ada.contains("on leave") && ada.contains("/users/enable?"), "{ada}");
    assert_eq!(page.matches("<bdi>billing</bdi></a></th>").count(), 2);
    // The service account comes first.
    let rows = page.split("<tr role=\"row\">").filter(|row| row.contains("<bdi>billing</bdi></a></th>"));
    for (row, (kind, active)) in rows.zip([("Service account", 1), ("Person", 2)]) {
        assert!(row.contains(&format!("data-label=\"Kind\">{kind}<")), "{row}");
        assert!(row.contains(&format!("data-label=\"Active tokens\">{active}<")), "{row}");
    }
    let services = person.get("/users?owner=service").await.body;
    assert!(services.contains("Service account</td>") && !services.contains("Person</td>"), "{services}");
    let disabled = person.get("/users?disabled=1").await.body;
    assert!(disabled.contains("<bdi>ada</bdi>") && !disabled.contains("<bdi>billing</bdi>"), "{disabled}");
    assert_eq!(person.get("/users?owner=robot").await.status, 400);
    // The link of a row is to the tokens of this owner and of no other.
    let list = person.get("/tokens?user=billing&organization=acme&owner=service").await.body;
    assert_eq!(list.matches("<tr role=\"row\" id=").count(), 1, "{list}");
}

#[tokio::test]
async fn a_service_account_is_disabled_and_enabled_and_the_person_of_its_id_is_not() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let made = created(&mut root, of_owner("billing", OwnerKind::Service, &[])).await;
    let other = created(&mut root, of_owner("billing", OwnerKind::User, &[])).await;
    let query = "user=billing&organization=acme&owner=service";
    let question = person.get(&format!("/users/disable?{query}")).await;
    assert!(question.body.contains("Disable the service account"), "{}", question.body);
    let fields = [("user", "billing"), ("organization", "acme"), ("owner", "service")];

    let reply = person.post("/users/disable", &[&fields[..], &[("reason", "leaked")]].concat()).await;

    let page = done(&person, &reply).await;
    assert!(page.contains("Refused everywhere from"), "{page}");
    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Disabled);
    assert_eq!(verdict(&mut root, &other.secret).await, Verdict::Valid);
    let id = made.token.as_ref().unwrap().id.clone();
    let token = person.get(&format!("/tokens/{id}")).await.body;
    assert!(
        token.contains("its user is disabled") && token.contains("Enable this service account"),
        "{token}"
    );
    let events =
        ListTokenEventsRequest { kinds: vec![TokenEventKind::UserDisabled.into()], ..Default::default() };
    let events = root.list_token_events(events).await.unwrap().into_inner().events;
    assert_eq!((events.len(), events[0].owner_kind()), (1, OwnerKind::Service));
    assert!(events[0].changes.iter().any(|change| change.new_value == "leaked"));

    let reply = person.post("/users/enable", &fields).await;
    assert!(done(&person, &reply).await.contains("Accepted everywhere from"));
    assert_eq!(verdict(&mut root, &made.secret).await, Verdict::Valid);
    // A notice of another act, or about another user, is not shown.
    let location = reply.header("location").unwrap();
    for forged in [location.replace("user=billing", "user=ada"), location.replace("/enable", "/disable")] {
        assert!(!person.get(&forged).await.body.contains("everywhere from"), "{forged}");
    }
}

#[tokio::test]
async fn pages_of_users_do_only_what_the_token_may_do() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let grant = Grant { users: texts(&["team-1"]), ..Grant::default() };
    let lead = CreateTokenRequest {
        grant: Some(grant),
        ..of_owner("lead", OwnerKind::User, &["tokend:write", "tokend:read"])
    };
    let lead = Person::of(replica.console, &created(&mut root, lead).await.secret).await;
    let reader = created(&mut root, of_owner("reader", OwnerKind::User, &["tokend:read"])).await;
    let reader = Person::of(replica.console, &reader.secret).await;
    let own = created(&mut root, of_owner("ada", OwnerKind::User, &["tokend:self"])).await;
    let own = Person::of(replica.console, &own.secret).await;
    let mut secrets = Vec::new();
    for user in ["team-1", "bob"] {
        secrets.push(created(&mut root, of_owner(user, OwnerKind::User, &[])).await.secret);
    }

    let page = lead.get("/users").await.body;
    assert!(row(&page, "team-1").contains("/users/disable?"), "{page}");
    assert!(!row(&page, "bob").contains("/users/disable?"), "{page}");
    assert!(!reader.get("/users").await.body.contains("/users/disable?"));
    assert_eq!(own.get("/users").await.status, 403);
    for (person, user, status) in
        [(&lead, "bob", 403), (&reader, "team-1", 403), (&own, "ada", 403), (&lead, "team-1", 303)]
    {
        let reply = person.post("/users/disable", &[("user", user)]).await;
        assert_eq!(reply.status, status, "{user}: {}", reply.body);
    }
    assert_eq!(verdict(&mut root, &secrets[0]).await, Verdict::Disabled);
    assert_eq!(verdict(&mut root, &secrets[1]).await, Verdict::Valid);
    for path in ["/users/disable?user=ada", "/users/enable?user=ada"] {
        assert_eq!(own.get(path).await.status, 403, "{path}");
        assert_eq!(reader.get(path).await.status, 403, "{path}");
    }
}
