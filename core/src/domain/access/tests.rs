//! Tests of what callers may do, and which credentials are accepted.

use super::*;
use crate::domain::networks::Network;
use crate::domain::scope::{Scope, Scopes};
use crate::fixtures::token;
use time::Duration;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

fn caller(scopes: &[&str]) -> Caller {
    Caller::from_token(&token(scopes), None, NOW).unwrap()
}

fn organization(text: &str) -> OrganizationId {
    OrganizationId::parse(text).unwrap()
}

fn scopes(text: &str) -> Scopes {
    Scopes::new(vec![Scope::parse(text).unwrap()]).unwrap()
}

/// Checks whether the caller may issue a token with these fields.
fn may_issue(
    caller: &Caller,
    scopes: &Scopes,
    expire_time: Option<OffsetDateTime>,
    allowed_cidrs: &Networks,
) -> Result<(), AccessError> {
    let (scopes, allowed_cidrs) = (scopes.clone(), allowed_cidrs.clone());
    caller.may_issue(&Token { scopes, allowed_cidrs, expire_time, ..token(&[]) })
}

fn network(text: &str) -> Networks {
    Networks::new(vec![Network::parse(text).unwrap()]).unwrap()
}

#[test]
fn a_token_with_networks_makes_a_caller_only_inside_them() {
    let mut token = token(&["tokend:root"]);
    token.allowed_cidrs = network("10.0.0.0/8");
    let from = |peer: Option<&str>| {
        let peer = peer.map(|text| text.parse().unwrap());
        Caller::from_token(&token, peer, NOW).map(drop)
    };
    assert_eq!(from(Some("10.1.2.3")), Ok(()));
    assert_eq!(from(Some("::ffff:10.1.2.3")), Ok(()));
    assert_eq!(from(Some("192.0.2.7")), Err(CredentialError::IpNotAllowed));
    assert_eq!(from(None), Err(CredentialError::IpNotAllowed));
}

#[test]
fn a_privileged_token_is_not_usable_from_more_networks_than_its_creator() {
    let mut writer = caller(&["tokend:write"]);
    let any = Networks::default();
    assert_eq!(may_issue(&writer, &scopes("tokend:write"), None, &any), Ok(()));
    writer.networks = network("10.0.0.0/8");
    let grant = |scope: &str, networks: &Networks| may_issue(&writer, &scopes(scope), None, networks);
    assert_eq!(grant("tokend:write", &network("10.1.0.0/16")), Ok(()));
    assert_eq!(grant("tokend:write", &network("11.0.0.0/8")), Err(AccessError::WiderNetworks));
    assert_eq!(grant("tokend:write", &any), Err(AccessError::WiderNetworks));
    assert_eq!(grant("a:b", &any), Ok(()));
}

#[test]
fn a_revoked_or_expired_token_makes_no_caller() {
    let mut expired = token(&["tokend:root"]);
    expired.expire_time = Some(NOW);
    assert_eq!(Caller::from_token(&expired, None, NOW).unwrap_err(), CredentialError::Expired);
    let mut revoked = token(&["tokend:root"]);
    revoked.revoke_time = Some(NOW);
    assert_eq!(Caller::from_token(&revoked, None, NOW).unwrap_err(), CredentialError::Revoked);
}

#[test]
fn each_permission_needs_its_scope_or_root() {
    use Permission::{ReadAll, ReadOwn, Verify, WriteAll, WriteOwn};
    for (scope, allowed) in [
        ("tokend:verify", vec![Verify]),
        ("tokend:verify:any", vec![Verify]),
        ("tokend:read", vec![ReadOwn, ReadAll]),
        ("tokend:self", vec![ReadOwn, WriteOwn]),
        ("tokend:write", vec![WriteOwn, WriteAll]),
        ("tokend:root", vec![Verify, ReadOwn, ReadAll, WriteOwn, WriteAll]),
        ("a:*", vec![]),
    ] {
        for permission in [Verify, ReadOwn, ReadAll, WriteOwn, WriteAll] {
            assert_eq!(
                caller(&[scope]).require(permission).is_ok(),
                allowed.contains(&permission),
                "{scope} {permission:?}"
            );
        }
    }
}

#[test]
fn only_root_reaches_other_organizations_and_verify_any_only_for_verdicts() {
    let acme = organization("acme");
    let own = Reach::Only(&acme);
    assert_eq!(caller(&["tokend:write"]).reach(), own);
    assert_eq!(caller(&["tokend:verify:any"]).reach(), own);
    assert_eq!(caller(&["tokend:verify:any"]).verify_reach(), Reach::Any);
    assert_eq!(caller(&["tokend:verify"]).verify_reach(), own);
    assert_eq!(caller(&["tokend:root"]).reach(), Reach::Any);
}

#[test]
fn the_default_organization_is_the_callers_own_and_for_root_the_default_one() {
    let writer = caller(&["tokend:write"]);
    let root = caller(&["tokend:root"]);
    assert_eq!(writer.organization(None), Ok(organization("acme")));
    assert_eq!(writer.organization(Some(organization("other"))), Err(AccessError::ForeignOrganization));
    assert_eq!(root.organization(None), Ok(organization("default")));
    assert_eq!(root.listed_organization(None), Ok(None));
    assert_eq!(writer.listed_organization(None), Ok(Some(organization("acme"))));
}

#[test]
fn a_reserved_scope_is_granted_only_by_its_holder_and_not_for_longer() {
    let mut writer = caller(&["tokend:write", "tokend:read"]);
    let any = Networks::default();
    assert_eq!(may_issue(&writer, &scopes("tokend:read"), None, &any), Ok(()));
    assert_eq!(
        may_issue(&writer, &scopes("tokend:verify"), None, &any),
        Err(AccessError::Privileged(ReservedScope::Verify))
    );
    writer.expire_time = Some(NOW + Duration::HOUR);
    let grant = |end| may_issue(&writer, &scopes("tokend:read"), end, &any);
    assert_eq!(grant(Some(NOW + Duration::HOUR)), Ok(()));
    assert_eq!(grant(Some(NOW + Duration::DAY)), Err(AccessError::OutlivesCaller));
    assert_eq!(grant(None), Err(AccessError::OutlivesCaller));
    assert_eq!(may_issue(&writer, &scopes("a:b"), None, &any), Ok(()));
}

#[test]
fn managing_a_privileged_token_needs_all_its_reserved_scopes() {
    let target = token(&["tokend:verify", "a:b"]);
    assert!(caller(&["tokend:write"]).may_manage(&target).is_err());
    assert!(caller(&["tokend:write", "tokend:verify"]).may_manage(&target).is_ok());
    assert!(caller(&["tokend:root"]).may_manage(&target).is_ok());
}

#[test]
fn a_change_adds_to_a_privileged_token_nothing_that_the_caller_lacks() {
    let mut writer = caller(&["tokend:write", "tokend:read"]);
    writer.expire_time = Some(NOW + Duration::HOUR);
    writer.networks = network("10.0.0.0/8");
    let eternal = token(&["tokend:read"]);
    let with = |change: &dyn Fn(&mut Token)| {
        let mut after = eternal.clone();
        change(&mut after);
        writer.may_change(&eternal, &after)
    };
    assert_eq!(with(&|after| after.name = crate::domain::TokenName::parse("n").unwrap()), Ok(()));
    assert_eq!(with(&|after| after.expire_time = Some(NOW + Duration::HOUR)), Ok(()));
    let later = with(&|after| after.expire_time = Some(NOW + Duration::DAY));
    assert_eq!(later, Err(AccessError::OutlivesCaller));
    assert_eq!(with(&|after| after.allowed_cidrs = network("10.1.0.0/16")), Ok(()));
    let wider = with(&|after| after.allowed_cidrs = network("11.0.0.0/8"));
    assert_eq!(wider, Err(AccessError::WiderNetworks));
    let mightier = with(&|after| after.scopes = token(&["tokend:read", "tokend:write"]).scopes);
    assert_eq!(mightier, Err(AccessError::OutlivesCaller));
    let lacking = with(&|after| after.scopes = scopes("tokend:verify"));
    assert_eq!(lacking, Err(AccessError::Privileged(ReservedScope::Verify)));
    assert_eq!(with(&|after| after.scopes = Scopes::default()), Ok(()));
    let ordinary = token(&["a:b"]);
    let privileged = writer.may_change(&ordinary, &token(&["a:b", "tokend:read"]));
    assert_eq!(privileged, Err(AccessError::OutlivesCaller));
    assert_eq!(writer.may_change(&ordinary, &token(&["c:d"])), Ok(()));
}

#[test]
fn tokend_self_extends_to_the_tokens_of_its_own_user() {
    let of_bob = Token { user_id: UserId::parse("bob").unwrap(), ..token(&[]) };
    let own = caller(&["tokend:self"]);
    for permission in [Permission::ReadOwn, Permission::WriteOwn] {
        assert!(own.extent(permission).unwrap().includes(&token(&[])));
        assert!(!own.extent(permission).unwrap().includes(&of_bob));
    }
    let reader = caller(&["tokend:self", "tokend:read"]);
    assert!(reader.extent(Permission::ReadOwn).unwrap().includes(&of_bob));
    assert!(!reader.extent(Permission::WriteOwn).unwrap().includes(&of_bob));
}

#[test]
fn a_principal_round_trips() {
    for principal in [Principal::Bootstrap, Principal::Token(TokenId::from_bytes([9; 16]))] {
        assert_eq!(Principal::parse(&principal.to_string()), Some(principal));
    }
    assert_eq!(Principal::parse("someone"), None);
}
