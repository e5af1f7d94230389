//! The page on which a person allows a login: where its answer goes, and who sees it.

use super::logins::{Program, STATE, ada, code, token};
use super::{OWN, cookie, hidden};
use crate::support::http::{post, send};
use crate::support::replica::Replica;

#[tokio::test]
async fn the_code_goes_only_to_the_person_s_own_computer() {
    let replica = Replica::start().await;
    let person = ada(&replica).await;
    let challenge = Program::new().verifier.challenge().render();
    let ask = async |query: &str| {
        let path = format!("/login?challenge={challenge}&host=laptop{query}");
        let asked = person.get(&path).await;
        let fields = format!("challenge={challenge}&host=laptop{query}&form_token={}", person.form_token);
        let form = [("content-type", "application/x-www-form-urlencoded"), OWN, ("cookie", &person.cookie)];
        (asked, send(person.address, "POST", "/login", &form, &fields).await)
    };
    for port in [
        "80",
        "0",
        "65536",
        "49152@evil.example",
        "evil.example",
        "@evil.example",
        "49152/..",
        "49152%23",
        "49152%3F",
        "%2F%2Fevil.example",
        "-1",
        "49152.evil.example",
        "javascript:1",
        "",
    ] {
        let (asked, sent) = ask(&format!("&port={port}&state={STATE}")).await;
        assert_eq!((asked.status, sent.status), (400, 400), "{port}");
        assert!(!sent.body.contains("evil") && !sent.body.contains("refresh"), "{}", sent.body);
    }
    // Parameters of other protocols lead nowhere.
    for other in [
        "redirect_uri=http%3A%2F%2Fevil.example%2F",
        "callback=http%3A%2F%2Fevil.example%2F",
        "host=%22%3E%3Cmeta%20http-equiv%3Drefresh%20content%3D%220%3Burl%3Dhttp%3A%2F%2Fevil.example",
    ] {
        let (_, sent) = ask(&format!("&port=49152&state={STATE}&{other}")).await;
        assert!(sent.body.contains("url=http://127.0.0.1:49152/callback?code="), "{}", sent.body);
        assert_eq!(sent.body.matches("http-equiv").count(), 1);
        assert!(!sent.body.contains("evil.example\""), "{}", sent.body);
    }
    // Without a port the code is shown, and goes nowhere by itself.
    let (asked, sent) = ask("").await;
    assert!(asked.body.contains("You then get a code"), "{}", asked.body);
    assert!(sent.body.contains("Type this code into the terminal") && !sent.body.contains("refresh"));
    assert_eq!(code(&sent.body).len(), 22);
}

#[tokio::test]
async fn a_person_who_is_not_signed_in_signs_in_first_and_is_led_back() {
    let replica = Replica::start().await;
    let (_, secret) = token(&replica, "ada", &["tokend:self"], 30, None).await;
    let program = Program::new();
    let path = program.path();

    let asked = send(replica.console, "GET", &path, &[("sec-fetch-site", "none")], "").await;
    assert_eq!(asked.status, 401);
    let next = hidden(&asked.body, "next").replace("&#38;", "&");
    assert_eq!(next, path);
    let signed_in = post(replica.console, "/sign-in", &[OWN], &[("secret", &*secret), ("next", &next)]).await;
    assert_eq!(signed_in.header("location").unwrap(), path);
    let session = cookie(&signed_in);
    let asked = send(replica.console, "GET", &path, &[("cookie", &session)], "").await;

    assert_eq!(asked.status, 200);
    // No other site shows it within a page of its own.
    let policy = asked.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"), "{policy}");
    assert_eq!(asked.header("x-frame-options").as_deref(), Some("DENY"));
}
