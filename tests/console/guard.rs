//! What every request has to pass, and what every answer carries: names, headers, and that getting pages changes nothing.

use tokend::api::origin::Origin;

use super::{OWN, Person, cookie, hidden, sign_in};
use crate::support::http::{send, send_by_name};
use crate::support::replica::{Installation, Replica};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[tokio::test]
async fn every_answer_lets_a_browser_show_this_page_and_do_nothing_else() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let address = replica.console;
    let long = "x".repeat(70_000);
    let mut replies = vec![
        send_by_name(address, "evil.example", "GET", "/tokens", &[], "").await,
        send(address, "GET", "/nothing", &[], "").await,
        send(address, "DELETE", "/tokens", &[], "").await,
        send(address, "POST", "/sign-in", &[FORM], "secret=x").await,
        send(address, "POST", "/sign-in", &[FORM, OWN], &long).await,
        sign_in(address, "tokd_wrong").await,
    ];
    for path in
        ["/", "/sign-in", "/tokens", "/tokens/new", "/tokens/new?form=AAAAAAAAAAAAAAAAAAAAAA", "/tokens/x"]
    {
        replies.push(person.get(path).await);
    }
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [421, 404, 405, 403, 413, 401, 303, 401, 200, 303, 200, 404]);

    for reply in &replies {
        let header = |name| reply.header(name).unwrap_or_else(|| panic!("{name}: {reply:?}"));
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ] {
            assert!(policy.split("; ").any(|found| found == part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"), "{policy}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(header(name), value, "{name}");
        }
        let features = header("permissions-policy");
        let allowed: Vec<_> = features.split(", ").filter(|feature| !feature.ends_with("=()")).collect();
        assert_eq!(allowed, ["clipboard-write=(self)"]);
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn script_and_stylesheet_are_kept_under_names_of_their_content_and_pages_are_short() {
    let replica = Replica::start().await;
    let page = send(replica.console, "GET", "/sign-in", &[], "").await.body;

    for (attribute, kind) in [("script src=\"", "text/javascript"), ("stylesheet\" href=\"", "text/css")] {
        let (_, rest) = page.split_once(attribute).unwrap();
        let path = rest.split('"').next().unwrap();
        let asset = send(replica.console, "GET", path, &[], "").await;
        assert_eq!(asset.status, 200);
        assert!(asset.header("content-type").unwrap().starts_with(kind));
        assert_eq!(asset.header("cache-control").unwrap(), "public, max-age=31536000, immutable");
        assert!(asset.header("content-security-policy").is_some());
        assert!(asset.body.lines().count() <= 200 && page.len() + asset.body.len() < 50_000);
    }
    // No code and no style stands in a page: the policy would not run it.
    assert!(!page.contains("style=") && !page.contains(" on") && !page.contains("<style"));
    assert_eq!(send(replica.console, "GET", "/assets/console-0.js", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_by_somebody_elses_dns_gets_nothing() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let port = replica.console.port();
    let by = async |host: &str| {
        let cookies = [("cookie", &*person.cookie)];
        send_by_name(replica.console, host, "GET", "/tokens", &cookies, "").await
    };

    for good in ["localhost", "tokend.localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(by(&format!("{good}:{port}")).await.status, 200, "{good}");
    }
    for bad in ["evil.example", "localhost.evil.example", "127.0.0.2", "localhost."] {
        let reply = by(&format!("{bad}:{port}")).await;
        assert_eq!(reply.status, 421, "{bad}");
        assert!(reply.body.contains(&format!("http://tokend.localhost:{port}/")), "{}", reply.body);
        assert!(!reply.body.contains("API Tokens"));
    }
    assert_eq!(by("localhost").await.status, 421);
    assert_eq!(by("localhost:1").await.status, 421);
}

#[tokio::test]
async fn the_configured_name_is_the_only_one_and_its_scheme_decides_the_cookie() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.console_origin = Some(Origin::parse("https://tokens.example.org").unwrap());
    let replica = installation.serve(config).await;
    let host = "tokens.example.org";
    let secret = format!("secret={}", installation.root_secret);
    let origin = ("origin", "https://tokens.example.org");
    let signed_in = send_by_name(replica.console, host, "POST", "/sign-in", &[FORM, origin], &secret).await;
    assert_eq!(signed_in.status, 303);
    let set = signed_in.header("set-cookie").unwrap();
    assert!(set.starts_with("__Host-tokend-console="), "{set}");
    for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Secure"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Domain") && !set.contains("Expires"), "{set}");

    let by = async |host: &str, cookie: &str| {
        send_by_name(replica.console, host, "GET", "/tokens", &[("cookie", cookie)], "").await.status
    };
    let strict = cookie(&signed_in);
    assert_eq!(by(host, &strict).await, 200);
    for other in ["127.0.0.1", "localhost", "tokend.localhost"] {
        assert_eq!(by(&format!("{other}:{}", replica.console.port()), &strict).await, 421, "{other}");
    }
    // A cookie without the prefix, which a page without TLS could set, opens nothing.
    let value = strict.split_once('=').unwrap().1;
    let plain = format!("tokend-console-{}={value}", replica.console.port());
    assert_eq!(by(host, &plain).await, 401);
    assert_eq!(by(host, &format!("{strict}; {strict}")).await, 401);
    let http = ("origin", "http://tokens.example.org");
    let other = send_by_name(replica.console, host, "POST", "/sign-in", &[FORM, http], &secret).await;
    assert_eq!(other.status, 403);
}

#[tokio::test]
async fn getting_pages_changes_nothing() {
    let replica = Replica::start().await;
    let person = Person::root(&replica).await;
    let nonce = person.new_form().await;
    let id = person.created(&nonce, "laptop", &[]).await.0;
    let id = hidden(&id, "token").to_owned();
    let database = &replica.installation.database;
    let events = "SELECT count(*) FROM token_events";
    let before = database.count(events).await;

    for path in [
        "/tokens".to_owned(),
        format!("/tokens/{id}"),
        format!("/tokens/{id}/revoke?confirmation=revoke&form_token={}", person.form_token),
        format!("/tokens/{id}/rotate?form={nonce}&grace=now&form_token={}", person.form_token),
        format!("/tokens/{id}/edit?name=x&form_token={}", person.form_token),
        format!("/tokens/{id}/disable?form_token={}", person.form_token),
        format!("/tokens/{id}/enable?form_token={}", person.form_token),
        format!("/tokens/chosen?do=revoke&id={id}&confirmation=revoke&form_token={}", person.form_token),
        format!("/tokens/user?user=ada&confirmation=revoke&form_token={}", person.form_token),
        format!("/tokens/new?form={nonce}&name=x&user=eve&expiration=30d&form_token={}", person.form_token),
        format!("/tokens/created/{nonce}"),
        format!("/tokens/created/{nonce}/done?form_token={}", person.form_token),
        format!("/sign-out?form_token={}", person.form_token),
        format!("/sign-in?secret={}", replica.installation.root_secret),
    ] {
        let reply = person.get(&path).await;
        assert!([200, 401, 405].contains(&reply.status), "{path}: {}", reply.status);
        assert_eq!(reply.header("set-cookie"), None, "{path}");
    }

    assert_eq!(database.count(events).await, before);
    assert_eq!(person.get(&format!("/tokens/created/{nonce}")).await.status, 200);
}

#[tokio::test]
async fn a_link_on_another_site_is_followed_once_more_from_here() {
    let replica = Replica::start().await;
    // SameSite=Strict: no cookie comes with it.
    let linked = [("sec-fetch-site", "cross-site")];
    let path = "/tokens/new?name=%22%3E%3Cscript%3E";

    let reply = send(replica.console, "GET", path, &linked, "").await;

    assert_eq!(reply.status, 200);
    assert!(
        reply.body.contains(&format!("http-equiv=\"refresh\" content=\"0; url={path}\"")),
        "{}",
        reply.body
    );
    assert_eq!(send(replica.console, "GET", path, &[OWN], "").await.status, 401);
}
