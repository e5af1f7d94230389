//! Sessions: opened by a token's secret, kept by no more than a hash, and never more than their token.

use secrecy::ExposeSecret as _;
use tokend::domain::{Network, Networks};
use tokend::secret::SessionKey;

use super::{OWN, Person, dump, hex, sign_in};
use crate::support::client::{created, created_with, ordinary, revoked, texts, unknown_id};
use crate::support::eventually;
use crate::support::http::{post, send};
use crate::support::replica::{Installation, Replica};
use tokend::api::proto::{CreateTokenRequest, DisableTokenRequest, EnableTokenRequest};

#[tokio::test]
async fn a_session_is_opened_by_a_secret_and_its_row_opens_nothing() {
    let replica = Replica::start().await;
    let reply = sign_in(replica.console, &format!("  {}\n", replica.installation.root_secret)).await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (303, Some("/tokens")));
    let set = reply.header("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{set}");
    let (name, value) =
        super::cookie(&reply).split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(name, format!("tokend-console-{}", replica.console.port()));

    let key = SessionKey::parse(&value).unwrap();
    let stored = dump(&replica.installation.database).await;
    assert!(stored.contains(&hex(&key.hash())));
    assert!(!stored.contains(key.render().expose_secret()));
    assert!(!stored.contains(&replica.installation.root_secret));
    // What is stored is no cookie.
    let hash = format!("{name}={}", base64_url(&key.hash()));
    assert_eq!(send(replica.console, "GET", "/tokens", &[("cookie", &hash)], "").await.status, 401);
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn only_a_secret_of_a_token_that_may_read_or_write_signs_in() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let ordinary = created_with(&mut root, "acme", &["reports:read"]).await.secret;
    let verifier = created_with(&mut root, "acme", &["tokend:verify"]).await.secret;
    let ended = created_with(&mut root, "acme", &["tokend:read"]).await;
    revoked(&mut root, &ended.token.unwrap().id, "").await;
    let stranger = crate::support::client::forged(unknown_id());

    for (secret, status, said) in [
        ("", 401, "Paste a secret"),
        ("x", 401, "not the text of a secret"),
        (&stranger, 401, "No token has this secret"),
        (&ended.secret, 401, "revoked"),
        (&ordinary, 401, "can neither read nor create"),
        (&verifier, 401, "can neither read nor create"),
    ] {
        let reply = sign_in(replica.console, secret).await;
        assert_eq!((reply.status, reply.header("set-cookie")), (status, None), "{said}");
        assert!(reply.body.contains(said), "{said}: {}", reply.body);
        assert!(reply.body.contains("aria-invalid=\"true\""));
        assert!(secret.is_empty() || !reply.body.contains(&format!("\"{secret}\"")));
    }
    for scope in ["tokend:read", "tokend:write"] {
        let secret = created_with(&mut root, "acme", &[scope]).await.secret;
        assert_eq!(sign_in(replica.console, &secret).await.status, 303, "{scope}");
    }
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM console_sessions").await, 2);
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_or_old_or_signed_out() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    for change in ["last_use_time = now() - interval '30 minutes'", "open_time = now() - interval '12 hours'"]
    {
        let person = Person::root(&replica).await;
        assert_eq!(database.execute(format!("UPDATE console_sessions SET {change}")).await, 1);
        let reply = person.get("/tokens").await;
        assert_eq!(reply.status, 401);
        assert!(reply.body.contains("Your session is over"), "{}", reply.body);
        assert!(reply.header("set-cookie").unwrap().contains("Max-Age=0"));
        assert_eq!(database.count("SELECT count(*) FROM console_sessions").await, 0);
    }

    let (person, other) = (Person::root(&replica).await, Person::root(&replica).await);
    let reply = person.post("/sign-out", &[]).await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (303, Some("/sign-in")));
    assert!(reply.header("set-cookie").unwrap().contains("Max-Age=0"));
    // The back button asks again, and gets nothing.
    assert_eq!(person.get("/tokens").await.status, 401);
    assert_eq!(other.get("/tokens").await.status, 200);

    // A use is recorded, so that the session goes on.
    database.execute("UPDATE console_sessions SET last_use_time = now() - interval '29 minutes'").await;
    assert_eq!(other.get("/tokens").await.status, 200);
    let fresh = "SELECT count(*) FROM console_sessions WHERE last_use_time > now() - interval '1 minute'";
    assert_eq!(database.count(fresh).await, 1);
}

#[tokio::test]
async fn revoking_the_token_ends_its_sessions_on_every_replica() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let admin = created_with(&mut one.root(), "acme", &["tokend:read", "tokend:write"]).await;
    let id = admin.token.unwrap().id;
    let person = Person::of(one.console, &admin.secret).await;
    let nonce = person.new_form().await;
    assert_eq!(person.at(&two).get("/tokens").await.status, 200);

    // A token that is disabled is refused, and let in again.
    let disable = DisableTokenRequest { token_id: id.clone(), ..Default::default() };
    one.root().disable_token(disable).await.unwrap();
    eventually("it is refused", async || (person.at(&two).get("/tokens").await.status == 401).then_some(()))
        .await;
    one.root().enable_token(EnableTokenRequest { token_id: id.clone() }).await.unwrap();
    eventually("it is let in", async || (person.at(&two).get("/tokens").await.status == 200).then_some(()))
        .await;

    revoked(&mut one.root(), &id, "").await;

    // At once where it was revoked, in mid-form too.
    let reply = person.generate(&nonce, "n", &[("expiration", "30d")]).await;
    assert_eq!(reply.status, 401);
    assert!(reply.body.contains("no longer accepted"), "{}", reply.body);
    eventually("it is refused", async || (person.at(&two).get("/tokens").await.status == 401).then_some(()))
        .await;
    assert_eq!(installation.database.count("SELECT count(*) FROM console_sessions").await, 0);
    assert!(super::tokens_of(&one, "ada").await.iter().all(|token| token.name != "n"));
}

#[tokio::test]
async fn a_session_outlives_the_replica_that_opened_it() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let person = Person::root(&one).await;
    let nonce = person.new_form().await;
    one.shut_down().outcome().await.unwrap();

    let (_, secret) = person.at(&two).created(&nonce, "laptop", &[]).await;

    assert!(secret.starts_with("tokd_"));
    assert_eq!(person.at(&two).post("/sign-out", &[]).await.status, 303);
    assert_eq!(person.at(&two).get("/tokens").await.status, 401);
}

#[tokio::test]
async fn a_token_that_is_bound_to_networks_signs_in_from_there_alone() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    let proxies = vec![Network::parse("127.0.0.0/8").unwrap()];
    config.integrations.trusted_proxies = Networks::new(proxies).unwrap();
    let replica = installation.serve(config).await;
    let bound = CreateTokenRequest {
        scopes: texts(&["tokend:read"]),
        allowed_cidrs: texts(&["192.0.2.0/24"]),
        ..ordinary()
    };
    let secret = created(&mut replica.root(), bound).await.secret;
    let from = async |address: Option<&str>| {
        let forwarded = address.map(|address| ("x-forwarded-for", address));
        let headers: Vec<_> = [OWN].into_iter().chain(forwarded).collect();
        post(replica.console, "/sign-in", &headers, &[("secret", &secret)]).await
    };

    for elsewhere in [None, Some("198.51.100.1"), Some("192.0.2.7, 198.51.100.1"), Some("unknown")] {
        let reply = from(elsewhere).await;
        assert_eq!(reply.status, 401, "{elsewhere:?}");
        assert!(reply.body.contains("may not be used from your address"));
    }
    let reply = from(Some("192.0.2.7")).await;
    assert_eq!(reply.status, 303);
    // It is judged anew for each page.
    let cookie = super::cookie(&reply);
    for (address, status) in [("192.0.2.8", 200), ("198.51.100.1", 401), ("192.0.2.8", 200)] {
        let headers = [("cookie", &*cookie), ("x-forwarded-for", address)];
        assert_eq!(send(replica.console, "GET", "/tokens", &headers, "").await.status, status, "{address}");
    }
}

#[tokio::test]
async fn a_token_has_a_hundred_sessions_and_the_least_used_ones_end() {
    let replica = Replica::start().await;
    let first = Person::root(&replica).await;
    let database = &replica.installation.database;
    let more = "INSERT INTO console_sessions (key_hash, id, token_id, open_time, last_use_time, proof_time, by_link)
        SELECT sha256(n::text::bytea), gen_random_uuid(), token_id, open_time, last_use_time + interval '1 second', proof_time, by_link
        FROM console_sessions, generate_series(1, 99) n";
    assert_eq!(database.execute(more).await, 99);

    let last = Person::root(&replica).await;

    assert_eq!(database.count("SELECT count(*) FROM console_sessions").await, 100);
    assert_eq!((first.get("/tokens").await.status, last.get("/tokens").await.status), (401, 200));
}

#[tokio::test]
async fn guesses_at_cookies_and_secrets_are_slowed() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let name = person.cookie.split_once('=').unwrap().0.to_owned();
    let stranger = crate::support::client::forged(unknown_id());
    let began = std::time::Instant::now();
    for number in 0..16 {
        if number % 2 == 0 {
            assert_eq!(sign_in(replica.console, &stranger).await.status, 401);
        } else {
            let made_up = format!("{name}={}", base64_url(&[number; 32]));
            assert_eq!(
                send(replica.console, "GET", "/tokens", &[("cookie", &made_up)], "").await.status,
                401
            );
        }
    }
    // Ten at once, then 20, 40, 80, 160, 320 and 640 ms; one is forgotten every two seconds.
    assert!(began.elapsed() > std::time::Duration::from_millis(300), "{:?}", began.elapsed());
    // A client with a session is not: its page comes without a delay of its own network's failures.
    assert_eq!(person.get("/tokens").await.status, 200);
}

#[tokio::test]
async fn a_root_session_shows_its_secret_again_before_acts_after_15_minutes() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let person = Person::root(&replica).await;
    let admin = created_with(&mut root, "acme", &["tokend:read", "tokend:write"]).await.secret;
    let admin = Person::of(replica.console, &admin).await;
    let other_root = created_with(&mut root, "acme", &["tokend:root"]).await.secret;
    let target = created_with(&mut root, "acme", &[]).await.token.unwrap().id;
    let revoke = format!("/tokens/{target}/revoke");
    let nonce = person.new_form().await;
    let stale = "UPDATE console_sessions SET proof_time = now() - interval '15 minutes'";
    let database = &replica.installation.database;
    assert_eq!(database.execute(stale).await, 2);

    assert!(person.get(&format!("/tokens/new?form={nonce}")).await.body.contains("name=\"proof\""));
    let stranger = crate::support::client::forged(unknown_id());
    for (proof, said) in [
        ("", "more than 15 minutes ago"),
        ("x", "not the text of a secret"),
        (&stranger, "No token has this secret"),
        (&other_root, "secret of another token"),
    ] {
        let reply = person.generate(&nonce, "desk", &[("expiration", "7d"), ("proof", proof)]).await;
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("id=\"proof-problem\"") && reply.body.contains(said), "{}", reply.body);
        assert!(reply.body.contains("value=\"desk\""), "what was typed stays");
        assert!(proof.len() < 2 || !reply.body.contains(proof));
        let reply = person.post(&revoke, &[("confirmation", "revoke"), ("proof", proof)]).await;
        assert_eq!(reply.status, 403);
        assert!(reply.body.contains("id=\"proof-problem\""), "{}", reply.body);
    }
    let tokens = super::tokens_of(&replica, "ada").await;
    assert!(tokens.iter().all(|token| token.name != "desk" && token.revoke_time.is_none()));
    // Reading needs no proof, nor does a token that cannot do everything.
    assert_eq!(person.get("/tokens").await.status, 200);
    let form = admin.new_form().await;
    assert_eq!(admin.generate(&form, "phone", &[("expiration", "7d")]).await.status, 303);

    let proof = [("expiration", "7d"), ("proof", &*replica.installation.root_secret)];
    assert_eq!(person.generate(&nonce, "desk", &proof).await.status, 303);
    // It counts for the next 15 minutes.
    assert_eq!(person.post(&revoke, &[("confirmation", "revoke")]).await.status, 303);
}
