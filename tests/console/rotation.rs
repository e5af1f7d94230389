//! The rotation of a token in the console.

use tokend::api::proto::{UpdatePolicyRequest, Verdict};

use super::{Person, hidden, secret};
use crate::support::client::{created, ordinary, verified};
use crate::support::replica::{Installation, Replica};
use crate::tokens::get::got;

/// Opens the form for a rotation, and returns its nonce.
async fn rotation_form(person: &Person, id: &str) -> String {
    let opened = person.get(&format!("/tokens/{id}/rotate")).await;
    assert_eq!(opened.status, 303);
    let form = person.get(&opened.header("location").unwrap()).await;
    assert_eq!(form.status, 200);
    hidden(&form.body, "form").to_owned()
}

#[tokio::test]
async fn a_successors_secret_is_shown_until_done_on_every_replica_and_the_old_one_lives_for_its_grace() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let person = Person::root(&one).await;
    let mut root = one.root();
    for (grace, seconds, old_verdict) in [
        ("now", 0, Verdict::Expired),
        ("1h", 3_600, Verdict::Valid),
        ("24h", 86_400, Verdict::Valid),
        ("7d", 604_800, Verdict::Valid),
    ] {
        let old = created(&mut root, ordinary()).await;
        let id = old.token.unwrap().id;
        let path = format!("/tokens/{id}/rotate");
        let nonce = rotation_form(&person, &id).await;
        let refused = person.post(&path, &[("form", &*nonce)]).await;
        assert_eq!(refused.status, 400);
        assert!(refused.body.contains("id=\"grace-problem\""), "{}", refused.body);

        // A double click, at two replicas.
        let fields = [("form", &*nonce), ("grace", grace)];
        let elsewhere = person.at(&two);
        let (first, second) = tokio::join!(person.post(&path, &fields), elsewhere.post(&path, &fields));
        assert_eq!((first.status, second.status), (303, 303), "{} {}", first.body, second.body);
        let shown = first.header("location").unwrap();
        assert!(shown.starts_with(&format!("/tokens/created/{nonce}")));
        let page = person.get(&shown).await.body;
        let text = secret(&page);
        assert_eq!(secret(&elsewhere.get(&shown).await.body), text);
        assert_eq!(secret(&person.get(&shown).await.body), text, "reload");
        let again = person.post(&path, &fields).await;
        assert_eq!(secret(&person.get(&again.header("location").unwrap()).await.body), text, "back");
        if grace == "now" {
            assert!(
                page.contains("The old token is refused everywhere from") && page.contains("data-effective")
            );
        } else {
            assert!(page.contains("is accepted until"), "{page}");
        }
        assert_eq!(verified(&mut root, &text, &[]).await.verdict(), Verdict::Valid);
        assert_eq!(verified(&mut root, &old.secret, &[]).await.verdict(), old_verdict, "{grace}");
        let stored = got(&mut root, &id).await;
        let new = got(&mut root, &stored.superseded_by).await;
        assert_eq!(new.rotated_from, id);
        let lives = stored.expire_time.unwrap().seconds - new.create_time.unwrap().seconds;
        assert_eq!(lives, seconds);

        assert_eq!(person.post(&format!("/tokens/created/{nonce}/done"), &[]).await.status, 303);
        assert_eq!(person.get(&shown).await.status, 410);
        assert_eq!(person.post(&path, &fields).await.status, 410);
    }
}

#[tokio::test]
async fn a_rotation_keeps_to_the_policy_and_gives_a_token_no_longer_life_by_itself() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let policy = tokend::api::proto::Policy {
        longest_grace: Some(prost_types::Duration { seconds: 7_200, nanos: 0 }),
        longest_lifetime: Some(prost_types::Duration { seconds: 40 * 86_400, nanos: 0 }),
        ..Default::default()
    };
    let request = UpdatePolicyRequest { organization_id: "acme".to_owned(), policy: Some(policy) };
    root.update_policy(request).await.unwrap();
    let request = tokend::api::proto::CreateTokenRequest {
        organization_id: "acme".to_owned(),
        scopes: vec!["tokend:read".to_owned(), "tokend:write".to_owned()],
        expiration: Some(tokend::api::proto::create_token_request::Expiration::Ttl(prost_types::Duration {
            seconds: 20 * 86_400,
            nanos: 0,
        })),
        ..ordinary()
    };
    let own = created(&mut root, request).await;
    let id = own.token.as_ref().unwrap().id.clone();
    let form =
        person.get(&format!("/tokens/{id}/rotate?form={}", rotation_form(&person, &id).await)).await.body;
    assert!(form.contains("value=\"1h\"") && !form.contains("value=\"24h\"") && form.contains("40 days"));
    let nonce = rotation_form(&person, &id).await;
    let long = person.post(&format!("/tokens/{id}/rotate"), &[("form", &*nonce), ("grace", "24h")]).await;
    assert_eq!(long.status, 409);
    assert!(long.body.contains("id=\"grace-problem\""), "{}", long.body);

    // By itself: not at once, and with the end that it has.
    let itself = Person::of(replica.console, &own.secret).await;
    let nonce = rotation_form(&itself, &id).await;
    let form = itself.get(&format!("/tokens/{id}/rotate?form={nonce}")).await.body;
    assert!(!form.contains("value=\"now\"") && !form.contains("name=\"expiration\""), "{form}");
    let path = format!("/tokens/{id}/rotate");
    assert_eq!(itself.post(&path, &[("form", &*nonce), ("grace", "now")]).await.status, 400);
    let fields = [("form", &*nonce), ("grace", "1h"), ("expiration", "never")];
    let rotated = itself.post(&path, &fields).await;
    assert_eq!(rotated.status, 303, "{}", rotated.body);
    assert!(secret(&itself.get(&rotated.header("location").unwrap()).await.body).starts_with("tokd_"));
    let new = got(&mut root, &id).await.superseded_by;
    let new = got(&mut root, &new).await;
    assert_eq!(new.expire_time, own.token.unwrap().expire_time);
}
