//! One token in the console: its page, and what can be done with it there.

use tokend::api::proto::{RotateTokenRequest, TokenState, UpdatePolicyRequest, UpdateTokenRequest, Verdict};

use super::{Person, done, hidden, secret, tokens_of};
use crate::support::client::{created, created_with, ordinary, revoked, rotated, rotation, verified};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};
use crate::tokens::get::got;

#[tokio::test]
async fn a_token_is_revoked_with_a_reason_and_a_typed_confirmation() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let created = created_with(&mut replica.root(), "acme", &["a:b"]).await;
    let id = created.token.unwrap().id;
    let path = format!("/tokens/{id}/revoke");
    let mut root = replica.root();
    assert_eq!(verified(&mut root, &created.secret, &[]).await.verdict(), Verdict::Valid);
    assert!(person.get(&path).await.body.contains("never undone"));

    for confirmation in ["", "yes", "revoke it"] {
        let reply = person.post(&path, &[("reason", "left"), ("confirmation", confirmation)]).await;
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains("id=\"confirmation-problem\"") && reply.body.contains("value=\"left\""));
    }
    assert_eq!(verified(&mut root, &created.secret, &[]).await.verdict(), Verdict::Valid);

    let reply = person.post(&path, &[("reason", "left <us>"), ("confirmation", " Revoke ")]).await;
    let shown = done(&person, &reply).await;
    assert!(shown.contains("Refused everywhere from") && shown.contains("data-effective=\"20"), "{shown}");
    assert_eq!(verified(&mut root, &created.secret, &[]).await.verdict(), Verdict::Revoked);
    let token = person.get(&format!("/tokens/{id}")).await.body;
    assert!(token.contains("left &#60;us&#62;") && token.contains("Revoked") && !token.contains("Revoke…"));
    // It stays in the list.
    assert!(person.get("/tokens?state=revoked").await.body.contains(&format!("id=\"t-{id}\"")));
    assert!(!person.get("/tokens?state=active").await.body.contains(&format!("id=\"t-{id}\"")));
    assert_eq!(person.post(&path, &[("confirmation", "revoke")]).await.status, 303, "again is no error");

    // The last root token is the one that the person is signed in with.
    let own = tokens_of(&replica, "root").await.remove(0);
    assert_eq!(own.state(), TokenState::Active);
    let reply = person.post(&format!("/tokens/{}/revoke", own.id), &[("confirmation", "revoke")]).await;
    assert_eq!(reply.status, 409);
    assert!(reply.body.contains("Nothing was revoked"), "{}", reply.body);
    assert_eq!(person.get("/tokens").await.status, 200);
}

#[tokio::test]
async fn a_page_shows_a_token_its_family_and_its_history_with_the_seals() {
    let installation = Installation::new().await;
    let replica = installation.serve(installation.config()).await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let request = tokend::api::proto::CreateTokenRequest {
        labels: [("team".to_owned(), "<pay>".to_owned())].into(),
        allowed_cidrs: vec!["10.0.0.0/8".to_owned()],
        scopes: vec!["a:b".to_owned()],
        ..ordinary()
    };
    let old = created(&mut root, request).await.token.unwrap();
    let request = RotateTokenRequest {
        grace_period: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        ..rotation(&old.id)
    };
    let new = rotated(&mut root, request).await.token.unwrap().id;
    revoked(&mut root, &new, "lost \u{202e}here").await;

    let page = person.get(&format!("/tokens/{}", old.id)).await.body;
    for words in [
        "Superseded",
        "accepted until",
        "Rotated into",
        &new,
        "&#60;pay&#62;",
        "10.0.0.0/8",
        "a:b",
        "Created by",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let history = page.split_once("id=\"history\"").unwrap().1;
    assert!(history.find("Rotated").unwrap() < history.find("Created").unwrap(), "the newest first");
    assert!(history.contains("superseded by") && history.contains(&old.created_by), "{history}");

    let page = eventually("the events are sealed", async || {
        let page = person.get(&format!("/tokens/{new}")).await.body;
        (!page.contains("not sealed yet")).then_some(page)
    })
    .await;
    assert_eq!(page.matches(">sealed<").count(), 2);
    for words in ["Rotated from", &old.id, "lost \\u{202e}here", "accepted until"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("Revoke…") && !page.contains("Edit<"), "what is revoked stays so");
    assert!(page.contains("New like this one"));
}

#[tokio::test]
async fn a_long_history_has_pages() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    for number in 0..20 {
        let request = UpdateTokenRequest {
            token_id: id.clone(),
            name: format!("name {number:02} {}", "x".repeat(90)),
            labels: (0..32).map(|label| (format!("{label}-{}", "k".repeat(60)), "v".repeat(250))).collect(),
            update_mask: Some(prost_types::FieldMask { paths: vec!["name".to_owned(), "labels".to_owned()] }),
            ..Default::default()
        };
        root.update_token(request).await.unwrap();
    }
    let page = person.get(&format!("/tokens/{id}")).await.body;
    assert!(page.len() < 50_000, "{} bytes", page.len());
    assert!(page.contains("name 19") && !page.contains("name 02"));
    let (_, older) = page.split_once(&format!("href=\"/tokens/{id}?events=")).unwrap();
    let token = older.split(['"', '#']).next().unwrap();
    let page = person.get(&format!("/tokens/{id}?events={token}")).await.body;
    assert!(page.contains("name 02") && page.contains("Newest"), "{page}");
    assert_eq!(person.get(&format!("/tokens/{id}?events=x")).await.status, 400);
}

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

#[tokio::test]
async fn a_change_saves_what_differs_and_undoes_nobody_elses() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let token = created_with(&mut root, "acme", &["a:b"]).await.token.unwrap();
    let path = format!("/tokens/{}/edit", token.id);
    let form = person.get(&path).await.body;
    assert!(form.contains("As it is:") && form.contains(">a:b</textarea>"), "{form}");
    let version = hidden(&form, "version").to_owned();
    let fields = |name: &'static str| {
        [("version", version.clone()), ("expiration", "keep".to_owned()), ("scopes", "a:b".to_owned())]
            .into_iter()
            .chain([("name", name.to_owned()), ("labels", "team=x\r\nb=".to_owned())])
            .chain([("networks", "10.0.0.0/8".to_owned())])
            .collect::<Vec<_>>()
    };
    let sent = fields("laptop");
    let sent: Vec<_> = sent.iter().map(|(name, value)| (*name, &**value)).collect();

    let reply = person.post(&path, &sent).await;
    let shown = done(&person, &reply).await;
    assert!(shown.contains("Saved. Every replica judges by it from"), "{shown}");
    let changed = got(&mut root, &token.id).await;
    assert_eq!((&*changed.name, changed.labels.len()), ("laptop", 2));
    assert_eq!((&changed.scopes, &changed.expire_time), (&token.scopes, &token.expire_time));
    assert_eq!(changed.allowed_cidrs, ["10.0.0.0/8"]);

    // The form of before would undo that.
    let stale = person.post(&path, &sent).await;
    assert_eq!(stale.status, 409);
    assert!(stale.body.contains("Somebody changed this token") && stale.body.contains("value=\"laptop\""));
    let version = hidden(&stale.body, "version").to_owned();
    let same = [
        ("version", &*version),
        ("expiration", "keep"),
        ("name", "laptop"),
        ("scopes", "a:b"),
        ("labels", "b=\nteam=x"),
        ("networks", "10.0.0.0/8"),
    ];
    let same = person.post(&path, &same).await;
    assert_eq!(same.status, 400);
    assert!(same.body.contains("Nothing differs"));
    let wrong = [
        ("version", &*version),
        ("expiration", "keep"),
        ("name", "\u{202e}x"),
        ("scopes", "A"),
        ("labels", "x"),
        ("networks", "y"),
    ];
    let wrong = person.post(&path, &wrong).await;
    for field in ["name", "scopes", "labels", "networks"] {
        assert!(wrong.body.contains(&format!("id=\"{field}-problem\"")), "{field}");
    }
    let past = [
        ("version", &*version),
        ("expiration", "date"),
        ("date", "2001-01-01"),
        ("name", "laptop"),
        ("scopes", "a:b"),
        ("labels", "b=\nteam=x"),
        ("networks", "10.0.0.0/8"),
    ];
    let past = person.post(&path, &past).await;
    assert!(past.body.contains("id=\"date-problem\""), "{}", past.body);
    assert_eq!(got(&mut root, &token.id).await, changed);
}

#[tokio::test]
async fn a_token_is_disabled_with_a_reason_and_enabled_again() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let mut root = replica.root();
    let token = created_with(&mut root, "acme", &["a:b"]).await;
    let id = token.token.unwrap().id;
    let path = |act: &str| format!("/tokens/{id}/{act}");
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Valid);
    assert!(person.get(&path("disable")).await.body.contains("until somebody enables it again"));

    let reply = person.post(&path("disable"), &[("reason", "on leave")]).await;
    let shown = done(&person, &reply).await;
    for words in ["Refused everywhere from", "data-effective", "Disabled", "on leave", "Enable…"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Disabled);
    assert_eq!(person.post(&path("disable"), &[]).await.status, 303, "again is no error");

    let reply = person.post(&path("enable"), &[]).await;
    assert!(done(&person, &reply).await.contains("Accepted everywhere from"));
    assert_eq!(verified(&mut root, &token.secret, &[]).await.verdict(), Verdict::Valid);

    revoked(&mut root, &id, "").await;
    let reply = person.post(&path("disable"), &[]).await;
    assert_eq!(reply.status, 409);
    assert!(reply.body.contains("revoked, which is never undone"));
    let own = tokens_of(&replica, "root").await.remove(0);
    let reply = person.post(&format!("/tokens/{}/disable", own.id), &[]).await;
    assert_eq!(reply.status, 409, "the last root token");
}

#[tokio::test]
async fn what_a_page_says_of_an_act_is_signed_for_the_session() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let token = created_with(&mut replica.root(), "acme", &["a:b"]).await.token.unwrap().id;
    let other = created_with(&mut replica.root(), "acme", &["a:b"]).await.token.unwrap().id;
    let reply = person.post(&format!("/tokens/{token}/disable"), &[]).await;
    let shown = reply.header("location").unwrap();
    assert!(person.get(&shown).await.body.contains("Refused everywhere"));

    let moved = shown.replace(&token, &other);
    let acted = shown.replace("done=disabled", "done=enabled");
    let (before, after) = shown.split_once("from=").unwrap();
    let dated = format!("{before}from=9{after}");
    for forged in [moved, acted, dated] {
        let page = person.get(&forged).await;
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("data-effective"), "{forged}");
    }
    let stranger = Person::root(&replica).await;
    assert!(!stranger.get(&shown).await.body.contains("data-effective"), "it is this session's");
}

#[tokio::test]
async fn a_form_like_another_token_has_what_a_link_may_choose() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let request = tokend::api::proto::CreateTokenRequest {
        name: "a&b \"c\"".to_owned(),
        organization_id: "acme".to_owned(),
        user_id: "ada & bob".to_owned(),
        scopes: vec!["reports:*".to_owned(), "tokend:write".to_owned()],
        labels: [("team".to_owned(), "a=b".to_owned())].into(),
        allowed_cidrs: vec!["10.0.0.0/8".to_owned()],
        expiration: Some(tokend::api::proto::create_token_request::Expiration::Ttl(prost_types::Duration {
            seconds: 30 * 86_400,
            nanos: 0,
        })),
        ..Default::default()
    };
    let mut root = replica.root();
    let id = created(&mut root, request.clone()).await.token.unwrap().id;
    let page = person.get(&format!("/tokens/{id}")).await.body;
    let (_, link) = page.split_once("href=\"/tokens/new?").unwrap();
    let link = link.split('"').next().unwrap().replace("&#38;", "&");
    assert!(!link.contains("tokend"), "{link}");
    let form = person.get(&format!("/tokens/new?{link}")).await;
    let form = person.get(&form.header("location").unwrap()).await.body;
    for words in [
        "value=\"a&#38;b &#34;c&#34;\"",
        "value=\"ada &#38; bob\"",
        "value=\"acme\"",
        ">reports:*</textarea>",
        ">team=a=b</textarea>",
        ">10.0.0.0/8</textarea>",
        "value=\"30d\" required checked",
    ] {
        assert!(form.contains(words), "{words}: {form}");
    }
    assert!(!form.contains("value=\"tokend:write\" checked"));

    let endless = tokend::api::proto::CreateTokenRequest {
        expiration: Some(tokend::api::proto::create_token_request::Expiration::NoExpiration(true)),
        ..request
    };
    let id = created(&mut root, endless).await.token.unwrap().id;
    let page = person.get(&format!("/tokens/{id}")).await.body;
    let (_, link) = page.split_once("href=\"/tokens/new?").unwrap();
    assert!(!link.split('"').next().unwrap().contains("expiration"));
}
