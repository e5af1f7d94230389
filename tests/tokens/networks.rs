//! The networks that a token may be used from: which are accepted, and Verify's verdict on an address.

use tokend::api::proto::{CreateTokenRequest, Verdict, VerifyRequest};
use tonic::Code;

use crate::support::client::{Client, created, ordinary, question, revoked, texts};
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

fn within(networks: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest { allowed_cidrs: texts(networks), scopes: texts(&["repo:read"]), ..ordinary() }
}

fn from(secret: &str, client_ip: &str) -> VerifyRequest {
    VerifyRequest { client_ip: client_ip.to_owned(), ..question(secret, &["repo:read"]) }
}

async fn verdict(client: &mut Client, request: VerifyRequest) -> Verdict {
    client.verify(request).await.unwrap().into_inner().verdict()
}

#[tokio::test]
async fn a_token_is_valid_only_inside_its_networks() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, within(&["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"])).await;
    assert_eq!(made.token.unwrap().allowed_cidrs, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]);

    for (client_ip, expected) in [
        ("10.0.0.0", Verdict::Valid),
        ("10.255.255.255", Verdict::Valid),
        ("::ffff:10.1.2.3", Verdict::Valid),
        ("192.0.2.7", Verdict::Valid),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Verdict::Valid),
        ("9.255.255.255", Verdict::IpNotAllowed),
        ("11.0.0.0", Verdict::IpNotAllowed),
        ("192.0.2.8", Verdict::IpNotAllowed),
        ("::ffff:192.0.2.8", Verdict::IpNotAllowed),
        ("2001:db9::", Verdict::IpNotAllowed),
        ("::10.1.2.3", Verdict::IpNotAllowed),
        ("", Verdict::IpNotAllowed),
    ] {
        assert_eq!(verdict(&mut root, from(&made.secret, client_ip)).await, expected, "{client_ip:?}");
    }
}

#[tokio::test]
async fn a_token_without_networks_is_valid_from_any_and_from_an_unknown_address() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, within(&[])).await;

    for client_ip in ["", "192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7"] {
        assert_eq!(verdict(&mut root, from(&made.secret, client_ip)).await, Verdict::Valid, "{client_ip:?}");
    }
}

#[tokio::test]
async fn ipv4_mapped_networks_are_ipv4_networks() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, within(&["::ffff:192.0.2.0/120", "::/0", "192.0.2.0/24"])).await;

    assert_eq!(made.token.unwrap().allowed_cidrs, ["192.0.2.0/24", "::/0"], "and held once");
    assert_eq!(verdict(&mut root, from(&made.secret, "192.0.2.7")).await, Verdict::Valid);
    assert_eq!(verdict(&mut root, from(&made.secret, "::ffff:198.51.100.1")).await, Verdict::IpNotAllowed);
}

#[tokio::test]
async fn every_other_reason_to_refuse_comes_before_the_address() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, within(&["10.0.0.0/8"])).await;
    let lacking = VerifyRequest { required_scopes: texts(&["repo:write"]), ..from(&made.secret, "11.0.0.1") };

    let answer = root.verify(lacking).await.unwrap().into_inner();

    assert_eq!(
        (answer.verdict(), &*answer.missing_scopes),
        (Verdict::MissingScope, &texts(&["repo:write"])[..])
    );
    let answer = root.verify(from(&made.secret, "11.0.0.1")).await.unwrap().into_inner();
    assert_eq!(answer.verdict(), Verdict::IpNotAllowed);
    assert_eq!(answer.missing_scopes, [""; 0]);
    let token = answer.token.unwrap();
    revoked(&mut root, &token.id, "").await;
    assert_eq!(verdict(&mut root, from(&made.secret, "11.0.0.1")).await, Verdict::Revoked);
}

#[tokio::test]
async fn an_invalid_address_is_refused_with_any_secret() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, within(&[])).await;

    for client_ip in [
        "localhost",
        "10.0.0.1:80",
        "10.0.0",
        "[::1]",
        "10.0.0.0/8",
        " 10.0.0.1",
        "fe80::1%eth0",
        "010.0.0.1",
        "::ffff:010.0.0.1",
    ] {
        for secret in [&*made.secret, "no secret"] {
            let outcome = root.verify(from(secret, client_ip)).await;
            let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
            assert_eq!(fields(&status), ["client_ip"], "{client_ip:?}");
        }
    }
    let all_wrong =
        VerifyRequest { required_scopes: texts(&["?"]), consistency: 9, ..from(&made.secret, "localhost") };
    let status = refused(root.verify(all_wrong).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["required_scopes[0]", "client_ip", "consistency"]);
}

#[tokio::test]
async fn an_invalid_network_is_refused_at_creation() {
    let replica = Replica::shared().await;
    let mut root = replica.root();

    for bad in [
        "",
        "10.0.0.1",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "2001:db8::1/32",
        "::/129",
        "any",
        "10.0.0.0/08",
        "010.0.0.0/8",
        "10.0.0.00/8",
        "0x0a.0.0.0/8",
        "::ffff:010.0.0.0/104",
        "::ffff:10.0.0.0/0104",
        "fe80::%1/64",
    ] {
        let outcome = root.create_token(within(&["10.0.0.0/8", bad])).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["allowed_cidrs[1]"], "{bad:?}");
    }
    let many = |number: u8| CreateTokenRequest {
        allowed_cidrs: (0..number).map(|index| format!("10.{index}.0.0/16")).collect(),
        ..ordinary()
    };
    assert_eq!(created(&mut root, many(64)).await.token.unwrap().allowed_cidrs.len(), 64);
    let status = refused(root.create_token(many(65)).await, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(fields(&status), ["allowed_cidrs"]);
}
