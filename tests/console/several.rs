//! Several tokens at once, and all of a user, in the console.

use tokend::api::proto::{CreateTokenRequest, Verdict};

use super::{Person, done, tokens_of};
use crate::support::client::{created, created_with, ordinary, revoked, unknown_id, verified};
use crate::support::replica::Replica;

#[tokio::test]
async fn several_tokens_are_revoked_or_disabled_and_each_failure_is_said() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let (one, two) = (created_with(&mut root, "acme", &[]).await, created_with(&mut root, "acme", &[]).await);
    let id = |made: &tokend::api::proto::CreateTokenResponse| made.token.as_ref().unwrap().id.clone();
    let over = id(&created_with(&mut root, "acme", &[]).await);
    revoked(&mut root, &over, "").await;
    let (first, second) = (id(&one), id(&two));
    let unknown = unknown_id().to_string();
    let list = person.get("/tokens").await.body;
    assert!(
        list.contains(&format!("name=\"id\" value=\"{first}\""))
            && list.contains("action=\"/tokens/chosen\"")
    );

    // Disabled: one of them is revoked already, one does not exist.
    let query = format!("do=disable&id={first}&id={second}&id={over}&id={unknown}&id={first}&id=x");
    let question = person.get(&format!("/tokens/chosen?{query}")).await.body;
    assert!(question.contains("Disable these 3 tokens?") && question.contains("1 of those that you chose"));
    let fields = [("do", "disable"), ("reason", "audit"), ("id", &first), ("id", &over), ("id", &second)];
    let reply = person.post("/tokens/chosen", &[&fields[..], &[("id", &unknown)]].concat()).await;
    let shown = done(&person, &reply).await;
    for words in [
        "2 of 4 disabled",
        "Refused everywhere from",
        "data-effective",
        "revoked, which is never undone",
        "there is no such token",
        "2 failed",
        &format!("/tokens/chosen?do=disable&#38;id={over}&#38;id={unknown}"),
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    for made in [&one, &two] {
        assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Disabled);
    }

    // Revoked: needs the confirmation, and is safe to repeat.
    let fields = [("do", "revoke"), ("id", &*first), ("id", &*second), ("reason", "left")];
    let refused = person.post("/tokens/chosen", &fields).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("id=\"confirmation-problem\"") && refused.body.contains("value=\"left\""));
    let fields = [&fields[..], &[("confirmation", "revoke")]].concat();
    for _ in 0..2 {
        let reply = person.post("/tokens/chosen", &fields).await;
        assert!(done(&person, &reply).await.contains("2 of 2 revoked"));
    }
    for made in [&one, &two] {
        assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Revoked);
    }

    // The last root token stays, the others are done.
    let third = created_with(&mut root, "acme", &[]).await;
    let own = tokens_of(&replica, "root").await.remove(0).id;
    let third_id = id(&third);
    let fields = [("do", "revoke"), ("id", &*own), ("id", &*third_id), ("confirmation", "revoke")];
    let reply = person.post("/tokens/chosen", &fields).await;
    let shown = done(&person, &reply).await;
    assert!(shown.contains("1 of 2 revoked") && shown.contains("it is the last root token"), "{shown}");

    let none = person.get("/tokens/chosen?do=revoke").await.body;
    assert!(none.contains("No token is chosen") && !none.contains("confirmation"));
    let forged =
        person.get(&format!("/tokens/chosen/done?done=revoked&from=0&sign=x&results={first}.ok")).await;
    assert_eq!(forged.status, 303, "what nobody did is not said");
}

#[tokio::test]
async fn somebody_elses_tokens_are_not_ended_with_ones_own() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let foreign = created_with(&mut root, "other", &[]).await;
    let stronger = created_with(&mut root, "acme", &["tokend:verify"]).await;
    let own = created_with(&mut root, "acme", &[]).await;
    let admin = created_with(&mut root, "acme", &["tokend:read", "tokend:write"]).await.secret;
    let admin = Person::of(replica.console, &admin).await;
    let id = |made: &tokend::api::proto::CreateTokenResponse| made.token.as_ref().unwrap().id.clone();
    let ids = [id(&foreign), id(&stronger), id(&own)];
    let mut fields = vec![("do", "revoke"), ("confirmation", "revoke")];
    fields.extend(ids.iter().map(|id| ("id", id.as_str())));

    let reply = admin.post("/tokens/chosen", &fields).await;

    let shown = done(&admin, &reply).await;
    assert!(shown.contains("1 of 3 revoked") && shown.contains("your token does not allow it"), "{shown}");
    for (made, verdict) in [(&foreign, Verdict::Valid), (&stronger, Verdict::Valid), (&own, Verdict::Revoked)]
    {
        assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), verdict);
    }
}

#[tokio::test]
async fn all_tokens_of_a_user_are_revoked() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let user = "<ada> & \u{202e}co";
    let request = |organization_id: &str| CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        user_id: user.to_owned(),
        ..ordinary()
    };
    let mut made = Vec::new();
    for _ in 0..30 {
        made.push(created(&mut root, request("acme")).await.secret);
    }
    let elsewhere = created(&mut root, request("other")).await.secret;
    let query = "user=%3Cada%3E+%26+%E2%80%AEco&organization=acme";
    let list = person.get(&format!("/tokens?{query}")).await.body;
    assert!(list.contains("Revoke all of this user"), "{list}");

    let question = person.get(&format!("/tokens/user?{query}")).await.body;
    assert!(question.contains("&#60;ada&#62; &#38; \\u{202e}co") && question.contains("the newest 25"));
    assert!(question.len() < 50_000);
    let fields = [("user", user), ("organization", "acme"), ("reason", "left")];
    assert_eq!(person.post("/tokens/user", &fields).await.status, 400);
    let fields = [&fields[..], &[("confirmation", "revoke")]].concat();
    for _ in 0..2 {
        let reply = person.post("/tokens/user", &fields).await;
        let shown = done(&person, &reply).await;
        assert!(shown.contains("are revoked") && shown.contains("Refused everywhere from"), "{shown}");
    }
    for secret in &made {
        assert_eq!(verified(&mut root, secret, &[]).await.verdict(), Verdict::Revoked);
    }
    assert_eq!(verified(&mut root, &elsewhere, &[]).await.verdict(), Verdict::Valid);

    let reply = person.post("/tokens/user", &[("user", "root"), ("confirmation", "revoke")]).await;
    assert_eq!(reply.status, 409, "the last root token");
    assert!(reply.body.contains("Nothing was revoked"));
    assert_eq!(person.get("/tokens/user").await.status, 200);
    assert_eq!(person.post("/tokens/user", &[("user", ""), ("confirmation", "revoke")]).await.status, 400);
}
