//! New tokens in the console: the form, and the secret that is shown once and never lost.

use std::fmt::Write as _;

use tokend::api::proto::{ListTokenEventsRequest, UpdatePolicyRequest, Verdict};

use super::{OWN, Person, hidden, secret, tokens_of};
use crate::support::client::{created, created_with, ordinary, verified};
use crate::support::eventually;
use crate::support::http::send;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};

#[tokio::test]
async fn a_person_generates_a_token_and_finds_it_in_the_list() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let list = person.get("/tokens").await.body;
    for words in ["Administration", "System", "API Tokens", ">New<"] {
        assert!(list.contains(words), "{words}");
    }
    let nonce = person.new_form().await;
    let form = person.get(&format!("/tokens/new?form={nonce}")).await.body;
    for words in ["Token Name", "User", "Expiration date", "No expiration", "30 days", ">Generate<"] {
        assert!(form.contains(words), "{words}");
    }
    assert!(!form.contains("checked"), "nothing is chosen beforehand");

    let more = [("scopes", "reports:read b:*"), ("labels", "team=payments"), ("networks", "10.0.0.0/8")];
    let (page, secret) = person.created(&nonce, "laptop", &more).await;
    for words in ["Copy", ">Done<", "reports:read", "team", "10.0.0.0/8"] {
        assert!(page.contains(words), "{words}");
    }
    let id = hidden(&page, "token").to_owned();
    assert!(secret.starts_with(&format!("tokd_{id}")));
    let answer = verified(&mut replica.root(), &secret, &["reports:read", "b:c"]).await;
    assert_eq!(answer.verdict(), Verdict::IpNotAllowed, "its networks hold");

    let done = person.post(&format!("/tokens/created/{nonce}/done"), &[("token", &id)]).await;
    assert_eq!((done.status, done.header("location").unwrap()), (303, format!("/tokens#t-{id}")));
    let list = person.get("/tokens").await.body;
    let (_, row) = list.split_once(&format!("id=\"t-{id}\"")).unwrap();
    let row = row.split("</tr>").next().unwrap();
    for words in [
        "laptop",
        "ada",
        "default",
        "reports:read",
        "Active",
        "in 30 days",
        "Never",
        &format!("tokd_{}…", &id[..8]),
    ] {
        assert!(row.contains(words), "{words}: {row}");
    }
    // The audit log has the actor that an RPC would have.
    let token = tokens_of(&replica, "ada").await.remove(0);
    assert_eq!((token.id, token.labels["team"].as_str()), (id.clone(), "payments"));
    let events = ListTokenEventsRequest { token_id: id, ..Default::default() };
    let events = replica.root().list_token_events(events).await.unwrap().into_inner().events;
    assert_eq!((events.len(), &events[0].actor), (1, &token.created_by));
    assert_eq!(events[0].trace_id.len(), 32);
}

#[tokio::test]
async fn each_way_to_expire_is_what_it_says() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    for (choice, days) in [("7d", 7), ("30d", 30), ("60d", 60), ("90d", 90), ("365d", 365)] {
        let reply = person.generate(&person.new_form().await, choice, &[("expiration", choice)]).await;
        assert_eq!(reply.status, 303);
        let token = tokens_of(&replica, "ada").await.into_iter().find(|token| token.name == choice).unwrap();
        let seconds = token.expire_time.unwrap().seconds - token.create_time.unwrap().seconds;
        assert_eq!(seconds, days * 86_400, "{choice}");
    }
    let reply = person.generate(&person.new_form().await, "never", &[("expiration", "never")]).await;
    assert_eq!(reply.status, 303);
    let date = [("expiration", "date"), ("date", "2099-12-31"), ("time", "18:30")];
    assert_eq!(person.generate(&person.new_form().await, "dated", &date).await.status, 303);
    let tokens = tokens_of(&replica, "ada").await;
    let end = |name: &str| tokens.iter().find(|token| token.name == name).unwrap().expire_time;
    assert_eq!(end("never"), None);
    assert_eq!(end("dated").unwrap().seconds, 4_102_425_000);
}

#[tokio::test]
async fn a_secret_is_shown_until_done_and_then_by_nothing() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let person = Person::root(&one).await;
    let nonce = person.new_form().await;
    let fields = [("expiration", "30d")];

    // A double click: both are sent before either is answered.
    let elsewhere = person.at(&two);
    let (first, second) = tokio::join!(
        person.generate(&nonce, "laptop", &fields),
        elsewhere.generate(&nonce, "laptop", &fields)
    );
    assert_eq!((first.status, second.status), (303, 303), "{} {}", first.body, second.body);
    let shown = first.header("location").unwrap();
    assert_eq!(second.header("location").unwrap(), shown);
    let text = secret(&person.get(&shown).await.body);
    // Reload; back and Generate again; another replica.
    assert_eq!(secret(&person.get(&shown).await.body), text);
    assert_eq!(person.generate(&nonce, "laptop", &fields).await.header("location").unwrap(), shown);
    assert_eq!(secret(&person.at(&two).get(&shown).await.body), text);
    assert_eq!(tokens_of(&one, "ada").await.len(), 1);

    // The form with other fields makes no second token, and says where the first one is.
    let other = person.generate(&nonce, "phone", &fields).await;
    assert_eq!(other.status, 409);
    assert!(other.body.contains("made its token already") && other.body.contains(&shown), "{}", other.body);
    assert!(!other.body.contains(&text));

    // Nobody else's session gets it.
    let stranger = Person::root(&one).await;
    assert_eq!(stranger.get(&shown).await.status, 404);
    assert_eq!(send(one.console, "GET", &shown, &[OWN], "").await.status, 401);

    assert_eq!(person.at(&two).post(&format!("{shown}/done"), &[]).await.status, 303);
    for replica in [&one, &two] {
        let person = person.at(replica);
        let gone = person.get(&shown).await;
        assert_eq!(gone.status, 410, "{}", gone.body);
        let again = person.generate(&nonce, "laptop", &fields).await;
        assert_eq!(again.status, 410);
        assert!(!gone.body.contains(&text) && !again.body.contains(&text));
    }
    assert_eq!(tokens_of(&one, "ada").await.len(), 1);
    assert_eq!(verified(&mut one.root(), &text, &[]).await.verdict(), Verdict::Valid);
    assert_eq!(person.post(&format!("{shown}/done"), &[]).await.status, 303, "Done twice is done");
}

#[tokio::test]
async fn the_secret_stands_in_one_answer_and_nowhere_else() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let nonce = person.new_form().await;
    let reply = person.generate(&nonce, "laptop", &[("expiration", "30d")]).await;
    let shown = reply.header("location").unwrap();
    let page = person.get(&shown).await;
    let canary = secret(&page.body);
    let id = hidden(&page.body, "token").to_owned();
    // What is not the token's id.
    let canary = canary.rsplit_once(&id).unwrap().1.to_owned();
    assert_eq!(page.body.matches(&canary).count(), 1);
    assert!(!format!("{reply:?}").contains(&canary));

    let mut elsewhere = String::new();
    for path in
        ["/tokens", &format!("/tokens/{id}"), &format!("/tokens/{id}/revoke"), "/tokens/new", "/sign-in"]
    {
        write!(elsewhere, "{:?}", person.get(path).await).unwrap();
    }
    let done = person.post(&format!("{shown}/done"), &[("token", &id)]).await;
    write!(elsewhere, "{done:?}").unwrap();
    assert!(elsewhere.contains(&id) && !elsewhere.contains(&canary));
    let stored: String = sqlx::query_scalar(
        "SELECT string_agg(t::text, '') || (SELECT string_agg(r::text, '') FROM token_requests r)
             || (SELECT string_agg(e::text, '') FROM token_events e)
             || (SELECT string_agg(s::text, '') FROM console_sessions s) FROM tokens t",
    )
    .fetch_one(&mut replica.installation.database.connect().await)
    .await
    .unwrap();
    assert!(!stored.contains(&canary));
}

#[tokio::test]
async fn an_outage_loses_nothing_and_the_answer_after_it_is_the_same_token() {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.serve(config).await;
    let person = Person::root(&replica).await;
    let nonce = person.new_form().await;
    let fields = [("expiration", "30d")];

    proxy.set(LinkState::Cut);
    let away = person.generate(&nonce, "laptop", &fields).await;
    assert_eq!(away.status, 503, "{}", away.body);
    assert!(away.body.contains("That is safe"), "{}", away.body);
    proxy.set(LinkState::Open);

    let shown = eventually("it is created", async || {
        person.generate(&nonce, "laptop", &fields).await.header("location")
    })
    .await;
    let text = secret(&person.get(&shown).await.body);
    assert_eq!(verified(&mut replica.root(), &text, &[]).await.verdict(), Verdict::Valid);
    assert_eq!(tokens_of(&replica, "ada").await.len(), 1);
}

#[tokio::test]
async fn what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let nonce = person.new_form().await;
    let fields = [
        ("form", &*nonce),
        ("name", ""),
        ("user", "ada & <b>"),
        ("scopes", "reports:read UPPER"),
        ("labels", "no pair"),
        ("networks", "10.0.0.1/8"),
    ];

    let reply = person.post("/tokens/new", &fields).await;

    assert_eq!(reply.status, 400);
    for field in ["name", "expiration", "scopes", "labels", "networks"] {
        assert!(reply.body.contains(&format!("id=\"{field}-problem\"")), "{field}");
        assert!(reply.body.contains(&format!("href=\"#{field}\"")), "{field}");
    }
    assert!(!reply.body.contains("id=\"user-problem\""));
    for kept in ["reports:read UPPER", "no pair", "10.0.0.1/8", &nonce] {
        assert!(reply.body.contains(kept), "{kept}");
    }
    assert!(reply.body.contains("ada &#38; &#60;b&#62;"), "{}", reply.body);

    // What only the use case knows stands beside its field, too.
    let policy = tokend::api::proto::Policy {
        expiration_required: true,
        allowed_scopes: vec!["reports:*".to_owned()],
        ..Default::default()
    };
    let request = UpdatePolicyRequest { organization_id: "default".to_owned(), policy: Some(policy) };
    replica.root().update_policy(request).await.unwrap();
    let reply = person.generate(&nonce, "n", &[("expiration", "never")]).await;
    assert_eq!(reply.status, 409, "{}", reply.body);
    assert!(
        reply.body.contains("id=\"expiration-problem\">The organization&#39;s policy requires an expiration")
    );
    let reply = person.generate(&nonce, "n", &[("expiration", "30d"), ("scopes", "other")]).await;
    assert!(reply.body.contains("id=\"scopes-problem\""), "{}", reply.body);
    let past = [("expiration", "date"), ("date", "2001-01-01")];
    let reply = person.generate(&nonce, "n", &past).await;
    assert!(reply.status == 400 || reply.status == 409 || reply.status == 500, "{}", reply.status);
    assert!(reply.body.contains("id=\"date-problem\""), "{}", reply.body);
    assert!(tokens_of(&replica, "ada").await.is_empty());
}

#[tokio::test]
async fn names_are_shown_and_never_become_part_of_a_page() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let emoji = "👩\u{200d}🚀".repeat(33);
    let names =
        ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'{{7*7}}'", "آدا لاولیس", &emoji];
    for name in names {
        let user: String = "u".chars().chain(name.chars()).take(40).collect();
        let fields =
            [("form", &*person.new_form().await), ("name", name), ("user", &user), ("expiration", "7d")];
        assert_eq!(person.post("/tokens/new", &fields).await.status, 303, "{name}");
    }
    let turned = created(
        &mut replica.root(),
        tokend::api::proto::CreateTokenRequest { user_id: "\u{202e}nimda".to_owned(), ..ordinary() },
    )
    .await;
    let list = person.get("/tokens").await.body;
    let id = turned.token.unwrap().id;
    let pages = [list, person.get(&format!("/tokens/{id}")).await.body];

    for page in &pages {
        for bad in ["<script>alert", "<img", "onerror=alert(1)>", "\u{202e}"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.contains("\\u{202e}nimda"));
    }
    for shown in ["&#60;script&#62;alert(1)", "&#34;&#62;&#60;img", "آدا لاولیس", &emoji] {
        assert!(pages[0].contains(shown), "{shown}");
    }
    for bad in ["a\r\nset-cookie: x=y", "\u{202e}x", ""] {
        let reply = person.generate(&person.new_form().await, bad, &[("expiration", "7d")]).await;
        assert_eq!((reply.status, reply.header("set-cookie")), (400, None), "{bad:?}");
    }
}

#[tokio::test]
async fn nobody_does_in_the_console_what_their_token_may_not() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let foreign = created_with(&mut root, "other", &[]).await.token.unwrap().id;
    let own = created_with(&mut root, "acme", &["tokend:write"]).await.token.unwrap().id;
    let reader = created_with(&mut root, "acme", &["tokend:read"]).await.secret;
    let reader = Person::of(replica.console, &reader).await;
    let admin = created_with(&mut root, "acme", &["tokend:read", "tokend:write"]).await.secret;
    let admin = Person::of(replica.console, &admin).await;

    let list = reader.get("/tokens").await.body;
    assert!(!list.contains(">New<") && !list.contains("Organization") && !list.contains(&foreign));
    assert!(list.contains(&own));
    for person in [&reader, &admin] {
        assert_eq!(person.get(&format!("/tokens/{foreign}")).await.status, 404);
        assert_eq!(person.get("/tokens?organization=other").await.status, 403);
    }
    assert_eq!(reader.get("/tokens/new").await.status, 403);
    assert_eq!(reader.generate("AAAAAAAAAAAAAAAAAAAAAA", "n", &[("expiration", "7d")]).await.status, 403);
    let confirmed = [("confirmation", "revoke")];
    assert_eq!(reader.post(&format!("/tokens/{own}/revoke"), &confirmed).await.status, 403);
    assert_eq!(admin.post(&format!("/tokens/{foreign}/revoke"), &confirmed).await.status, 404);

    // Reserved scopes: only those that the token itself has are offered, and issued.
    let nonce = admin.new_form().await;
    let form = admin.get(&format!("/tokens/new?form={nonce}")).await.body;
    assert!(form.contains("value=\"tokend:write\"") && !form.contains("value=\"tokend:root\""));
    let reply = admin.generate(&nonce, "n", &[("expiration", "7d"), ("privilege", "tokend:root")]).await;
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("id=\"scopes-problem\""), "{}", reply.body);
    let reply = admin.generate(&nonce, "n", &[("expiration", "7d"), ("organization", "other")]).await;
    assert_eq!(reply.status, 403);
    assert_eq!(admin.generate(&nonce, "n", &[("expiration", "7d")]).await.status, 303);
    assert_eq!(
        tokens_of(&replica, "ada").await.iter().find(|token| token.name == "n").unwrap().organization_id,
        "acme"
    );

    // A caller that may only write cannot list.
    let writer = created_with(&mut root, "acme", &["tokend:write"]).await.secret;
    let signed_in = super::sign_in(replica.console, &writer).await;
    let cookie = super::cookie(&signed_in);
    let reply = send(replica.console, "GET", "/tokens", &[("cookie", &cookie)], "").await;
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("lacks the scope tokend:read"));
}
