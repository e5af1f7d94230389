//! Tests of judging a token by its record.

use super::*;
use crate::domain::OrganizationId;
use crate::fixtures::token;
use crate::secret::KeyId;
use proptest::prelude::*;
use time::Duration;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

fn record(token: &Token) -> Record {
    Record::new(token, Mac { key_id: KeyId::from_bytes([0; 8]), tag: [0; 32] })
}

fn scopes(texts: &[&str]) -> Scopes {
    Scopes::new(texts.iter().map(|text| Scope::parse(text).unwrap()).collect()).unwrap()
}

fn verdict(token: &Token, now: OffsetDateTime, required: &[&str]) -> Verdict {
    judge(&record(token), now, Reach::Any, &scopes(required), None).verdict
}

#[test]
fn a_token_is_expired_from_its_expire_time_on() {
    let mut token = token(&[]);
    token.expire_time = Some(NOW);
    assert_eq!(verdict(&token, NOW - Duration::microseconds(1), &[]), Verdict::Valid);
    assert_eq!(verdict(&token, NOW, &[]), Verdict::Expired);
}

#[test]
fn the_first_verdict_that_applies_is_given() {
    let mut token = token(&["a:b"]);
    assert_eq!(verdict(&token, NOW, &["a:c"]), Verdict::MissingScope);
    token.disable_time = Some(NOW);
    assert_eq!(verdict(&token, NOW, &["a:c"]), Verdict::Disabled);
    token.expire_time = Some(NOW);
    assert_eq!(verdict(&token, NOW, &["a:c"]), Verdict::Expired);
    token.revoke_time = Some(NOW);
    assert_eq!(verdict(&token, NOW, &["a:c"]), Verdict::Revoked);
}

#[test]
fn the_client_address_is_judged_last() {
    let mut token = token(&["a:b"]);
    token.allowed_cidrs = Networks::new(vec![Network::parse("10.0.0.0/8").unwrap()]).unwrap();
    let judged = |token: &Token, required: &[&str], address: Option<&str>| {
        let address = address.map(|text| text.parse().unwrap());
        judge(&record(token), NOW, Reach::Any, &scopes(required), address).verdict
    };
    assert_eq!(judged(&token, &["a:b"], Some("10.1.2.3")), Verdict::Valid);
    assert_eq!(judged(&token, &["a:b"], Some("::ffff:10.1.2.3")), Verdict::Valid);
    assert_eq!(judged(&token, &["a:b"], Some("192.0.2.7")), Verdict::IpNotAllowed);
    assert_eq!(judged(&token, &["a:b"], None), Verdict::IpNotAllowed);
    assert_eq!(judged(&token, &["a:c"], None), Verdict::MissingScope);
    token.expire_time = Some(NOW);
    assert_eq!(judged(&token, &[], None), Verdict::Expired);
    assert_eq!(record(&token).allowed_cidrs(), Some(token.allowed_cidrs));
}

#[test]
fn a_token_of_another_organization_is_not_found_in_any_state() {
    let mut token = token(&[]);
    token.revoke_time = Some(NOW);
    let other = OrganizationId::parse("other").unwrap();
    let judgement = judge(&record(&token), NOW, Reach::Only(&other), &Scopes::default(), None);
    assert_eq!(judgement.verdict, Verdict::NotFound);
}

#[test]
fn missing_scopes_are_listed_in_order_and_only_with_their_verdict() {
    let record = record(&token(&["repo:*", "user:read"]));
    let judgement = judge(&record, NOW, Reach::Any, &scopes(&["z", "repo:x", "user:write"]), None);
    assert_eq!(judgement.missing_scopes, ["z", "user:write"].map(|text| Scope::parse(text).unwrap()));
    assert!(judge(&record, NOW, Reach::Any, &scopes(&["repo:b"]), None).missing_scopes.is_empty());
}

proptest! {
    #[test]
    fn missing_scopes_are_those_that_no_scope_of_the_token_covers(
        granted in prop::collection::vec("[ab](:[ab]){0,2}(:\\*)?", 0..4),
        added in "[ab](:[ab]){0,2}(:\\*)?",
        required in prop::collection::vec("[ab](:[ab]){0,2}(:\\*)?", 0..5),
    ) {
        let mut granted: Vec<&str> = granted.iter().map(String::as_str).collect();
        let required = scopes(&required.iter().map(String::as_str).collect::<Vec<_>>());
        let missing = |granted: &[&str]| {
            judge(&record(&token(granted)), NOW, Reach::Any, &required, None).missing_scopes
        };
        let before = missing(&granted);
        for scope in required.iter() {
            let covered = granted.iter().any(|granted| Scope::parse(granted).unwrap().covers(scope));
            prop_assert_eq!(before.contains(scope), !covered);
        }
        granted.push(&added);
        prop_assert!(missing(&granted).iter().all(|scope| before.contains(scope)));
    }

    #[test]
    fn adding_a_scope_never_removes_a_permission(
        granted in prop::collection::vec("[ab](:[ab]){0,2}", 0..4),
        added in "[ab](:[ab]){0,2}(:\\*)?",
        required in "[ab](:[ab]){0,2}(:\\*)?",
    ) {
        let mut granted: Vec<&str> = granted.iter().map(String::as_str).collect();
        let before = verdict(&token(&granted), NOW, &[&required]);
        granted.push(&added);
        let after = verdict(&token(&granted), NOW, &[&required]);
        prop_assert!(before != Verdict::Valid || after == Verdict::Valid);
    }
}
