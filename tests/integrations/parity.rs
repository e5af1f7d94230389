//! One table for all integrations: the same secret, scopes and address get the same verdict in
//! each, and each reports when nothing is known.

use std::rc::Rc;

use tokend::api::proto::{CreateTokenRequest, CreateTokenResponse, DisableTokenRequest};
use tokend::secret::TokenId;
use tokio::task::{JoinSet, LocalSet};

use super::asking::{CLUSTER, Case, Decision, Fixture, Interface, trusting};
use crate::support::client::{created, forged, ordinary, revoked, texts, unknown_id};
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Installation;

const SCOPES: [&str; 3] = ["repo:*", "plain", CLUSTER];

fn request(user: &str) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: user.to_owned(),
        scopes: texts(&SCOPES),
        ..ordinary()
    }
}

fn admitted(made: &CreateTokenResponse) -> Decision {
    let token = made.token.as_ref().unwrap();
    Decision::Admitted {
        user: token.user_id.clone(),
        organization: token.organization_id.clone(),
        token_id: token.id.clone(),
    }
}

fn denied(verdict: &str) -> Decision {
    Decision::Denied(verdict.to_owned())
}

/// Creates tokens in every state, and returns each case with the expected response.
async fn table(fixture: &Fixture) -> Vec<(&'static str, Case, Decision)> {
    let mut root = fixture.replica.root();
    let good = created(&mut root, request("ada")).await;
    let bound =
        created(&mut root, CreateTokenRequest { allowed_cidrs: texts(&["192.0.2.0/24"]), ..request("bo") });
    let bound = bound.await;
    let ended = created(&mut root, request("eve")).await;
    let gone = created(&mut root, request("gus")).await;
    let other =
        created(&mut root, CreateTokenRequest { organization_id: "other".to_owned(), ..request("olga") });
    let other = other.await;
    let off = created(&mut root, request("otto")).await;
    let token_id = off.token.as_ref().unwrap().id.clone();
    root.disable_token(DisableTokenRequest { token_id, ..Default::default() }).await.unwrap();
    let none = created(&mut root, CreateTokenRequest { scopes: Vec::new(), ..request("nil") }).await;

    let expire = "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'eve'";
    fixture.replica.installation.database.execute(expire).await;
    revoked(&mut root, &gone.token.as_ref().unwrap().id, "").await;
    let known = TokenId::parse(&good.token.as_ref().unwrap().id).unwrap();
    let ended_id = TokenId::parse(&ended.token.as_ref().unwrap().id).unwrap();
    let typo = {
        let (body, last) = good.secret.split_at(75);
        format!("{body}{}", if last == "0" { "1" } else { "0" })
    };

    let ask = |secret: &str, required: &[&'static str], client| Case {
        secret: secret.to_owned(),
        required: required.to_vec(),
        client,
    };
    vec![
        ("valid", ask(&good.secret, &[], None), admitted(&good)),
        ("covered scopes", ask(&good.secret, &["repo:read", "plain"], None), admitted(&good)),
        ("a client that nothing binds", ask(&good.secret, &[], Some("198.51.100.1")), admitted(&good)),
        ("a missing scope", ask(&good.secret, &["repo:read", "admin"], None), denied("missing_scope")),
        ("a reserved scope", ask(&good.secret, &["tokend:root"], None), denied("missing_scope")),
        ("no scopes at all", ask(&none.secret, &["plain"], None), denied("missing_scope")),
        ("no secret", ask("nonsense", &[], None), denied("malformed")),
        ("a typo", ask(&typo, &[], None), denied("malformed")),
        ("a long text", ask(&good.secret.repeat(20), &[], None), denied("malformed")),
        ("an unknown id", ask(&forged(unknown_id()), &[], None), denied("not_found")),
        ("a wrong secret", ask(&forged(known), &[], None), denied("not_found")),
        ("a wrong secret of an expired token", ask(&forged(ended_id), &[], None), denied("not_found")),
        ("expired", ask(&ended.secret, &[], None), denied("expired")),
        ("expired, and a scope is missing", ask(&ended.secret, &["admin"], None), denied("expired")),
        ("revoked", ask(&gone.secret, &[], None), denied("revoked")),
        ("disabled", ask(&off.secret, &[], None), denied("disabled")),
        ("another organization's", ask(&other.secret, &[], None), denied("not_found")),
        (
            "another organization's root",
            ask(&fixture.replica.installation.root_secret, &[], None),
            denied("not_found"),
        ),
        ("within its networks", ask(&bound.secret, &["plain"], Some("192.0.2.200")), admitted(&bound)),
        (
            "within them, as an IPv4-mapped address",
            ask(&bound.secret, &[], Some("::ffff:192.0.2.1")),
            admitted(&bound),
        ),
        ("outside its networks", ask(&bound.secret, &[], Some("192.0.3.1")), denied("ip_not_allowed")),
        ("from an unknown address", ask(&bound.secret, &[], None), denied("ip_not_allowed")),
        (
            "outside, and a scope is missing",
            ask(&bound.secret, &["admin"], Some("192.0.3.1")),
            denied("missing_scope"),
        ),
    ]
}

#[tokio::test]
async fn every_integration_agrees_with_verify() {
    let fixture = Fixture::new().await;
    let table = table(&fixture).await;
    let (_, expired, _) = table.iter().find(|(name, _, _)| *name == "expired").unwrap();
    eventually("the end of a token shows", async || {
        (fixture.verify(expired).await == denied("expired")).then_some(())
    })
    .await;

    for (name, case, expected) in &table {
        assert_eq!(&fixture.verify(case).await, expected, "{name}, by Verify");
        for interface in Interface::ALL {
            let askable = interface.askable(case);
            let expected = &fixture.verify(&askable).await;
            let output = fixture.ask(interface, &askable).await;
            assert!(
                output.agrees(expected),
                "{name}, by {interface:?}: {output:?}, where {expected:?} was due"
            );
        }
    }
}

#[tokio::test]
async fn a_revocation_reaches_every_integration_within_its_declared_time() {
    let fixture = Fixture::new().await;
    let mut root = fixture.replica.root();
    for interface in Interface::ALL {
        let made = created(&mut root, request("ada")).await;
        let case = Case { secret: made.secret.clone(), ..Case::default() };
        assert_eq!(fixture.ask(interface, &case).await, admitted(&made), "{interface:?}");

        revoked(&mut root, &made.token.unwrap().id, "").await;

        if interface.judges_by_itself() {
            eventually("it is heard of", async || {
                fixture.ask(interface, &case).await.agrees(&denied("revoked")).then_some(())
            })
            .await;
        }
        assert!(fixture.ask(interface, &case).await.agrees(&denied("revoked")), "{interface:?}");
    }
}

#[tokio::test]
async fn in_an_outage_no_integration_answers_yes_or_no() {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    config.integrations = trusting();
    let fixture = Rc::new(Fixture::of(installation.serve(config).await).await);
    let made = created(&mut fixture.replica.root(), request("ada")).await;
    let known = Case { secret: made.secret.clone(), ..Case::default() };
    let unknown = Case { secret: forged(unknown_id()), ..Case::default() };
    for interface in Interface::ALL {
        assert_eq!(fixture.ask(interface, &known).await, admitted(&made), "{interface:?}");
    }

    proxy.set(LinkState::Cut);
    eventually("the cache is too old to answer", async || {
        (fixture.verify(&known).await == Decision::Unknown).then_some(())
    })
    .await;

    // All concurrently, because some wait for their deadline.
    let here = LocalSet::new();
    let mut asking = JoinSet::new();
    for interface in Interface::ALL {
        for case in [known.clone(), unknown.clone()] {
            let fixture = Rc::clone(&fixture);
            asking.spawn_local_on(async move { (interface, fixture.ask(interface, &case).await) }, &here);
        }
    }
    for (interface, output) in here.run_until(asking.join_all()).await {
        assert_eq!(output, Decision::Unknown, "{interface:?}");
    }
}
