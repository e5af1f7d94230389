//! Property tests: no action makes a token wider than its actor may issue, for thousands of callers, actions and targets.
//! What is wider is defined here by what a token can be used for, not by the rules that are tested.

use std::cell::Cell;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use time::Duration;
use time::macros::datetime;

use super::*;
use crate::domain::grant::{Grant, Users};
use crate::domain::networks::Network;
use crate::domain::record::Record;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::{UserId, UserPrefix};
use crate::fixtures::token;
use crate::secret::{KeyId, Mac};

mod portals;

pub(super) const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

/// How many cases are tried.
const CASES: u32 = 6_000;

pub(super) const SCOPES: [&str; 8] =
    ["a", "a:b", "a:*", "c:*", "c:d:*", "tokend:self", "tokend:write", "tokend:read"];
const PROBES: [&str; 7] = ["a", "a:b", "a:x:y", "c:d", "c:d:e", "c:x", "z"];
const USERS: [&str; 4] = ["ann", "team-1", "team-12", "bob"];
pub(super) const NETWORKS: [&str; 4] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24"];
const ADDRESSES: [&str; 4] = ["10.200.0.1", "10.1.200.1", "10.1.2.3", "192.0.2.7"];

pub(super) fn some(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(texts), 0..3)
}

pub(super) fn parsed<T, E: std::fmt::Debug>(texts: &[&str], parse: fn(&str) -> Result<T, E>) -> Vec<T> {
    texts.iter().map(|text| parse(text).unwrap()).collect()
}

fn networks() -> impl Strategy<Value = Networks> {
    some(&NETWORKS).prop_map(|texts| Networks::new(parsed(&texts, Network::parse)).unwrap())
}

fn users() -> impl Strategy<Value = Users> {
    prop_oneof![
        1 => Just(Users::new(vec![], vec![], true).unwrap()),
        4 => (some(&USERS), some(&["team-", "team-1", "b"])).prop_map(|(ids, prefixes)| {
            Users::new(parsed(&ids, UserId::parse), parsed(&prefixes, UserPrefix::parse), false).unwrap()
        }),
    ]
}

fn grants() -> impl Strategy<Value = Option<Grant>> {
    let grant = (some(&SCOPES[..5]), users(), prop::option::of(1..4_i64), networks(), any::<bool>());
    prop::option::of(grant.prop_map(|(scopes, users, days, networks, may_grant_self)| Grant {
        scopes: Scopes::new(parsed(&scopes, Scope::parse)).unwrap(),
        users,
        longest_lifetime: days.map(Duration::days),
        networks,
        may_grant_self,
    }))
}

pub(super) fn tokens() -> impl Strategy<Value = Token> {
    let kinds = prop_oneof![2 => Just(OwnerKind::User), 1 => Just(OwnerKind::Service)];
    let owner = (prop_oneof![9 => Just("acme"), 1 => Just("other")], prop::sample::select(&USERS[..]), kinds);
    (owner, some(&SCOPES), prop::option::of(1..4_i64), networks(), grants()).prop_map(
        |((organization, user, owner_kind), scopes, days, allowed_cidrs, grant)| Token {
            organization_id: OrganizationId::parse(organization).unwrap(),
            user_id: UserId::parse(user).unwrap(),
            owner_kind,
            scopes: Scopes::new(parsed(&scopes, Scope::parse)).unwrap(),
            create_time: NOW,
            expire_time: days.map(|days| NOW + Duration::days(days)),
            allowed_cidrs,
            grant,
            ..token(&[])
        },
    )
}

/// Returns tokens that may act for others.
pub(super) fn actors() -> impl Strategy<Value = Token> {
    (tokens(), prop::sample::select(&["tokend:self", "tokend:write"][..])).prop_map(|(token, scope)| {
        let scopes = token.scopes.iter().cloned().chain([Scope::parse(scope).unwrap()]);
        Token { scopes: Scopes::new(scopes.collect()).unwrap(), ..token }
    })
}

/// Returns tokens that are often issued by one with a grant, and issue others.
fn deputies() -> impl Strategy<Value = Token> {
    (grants(), some(&NETWORKS[2..])).prop_map(|(grant, networks)| Token {
        scopes: Scopes::new(parsed(&["tokend:write"], Scope::parse)).unwrap(),
        create_time: NOW,
        expire_time: Some(NOW + Duration::DAY),
        allowed_cidrs: Networks::new(parsed(&networks, Network::parse)).unwrap(),
        grant,
        ..token(&[])
    })
}

pub(super) fn caller(token: &Token) -> Caller {
    let peer = ADDRESSES.iter().map(|address| address.parse().unwrap());
    let peer = peer.into_iter().find(|peer: &IpAddr| token.allowed_cidrs.admit(Some(*peer)));
    let caller = Caller::from_token(token, peer, NOW).unwrap();
    let record = Record::new(token, Mac { key_id: KeyId::from_bytes([0; 8]), tag: [0; 32] });
    let recorded = Caller::from_record(token.id, &record, peer, NOW).unwrap();
    assert_eq!(format!("{:?}", caller.holder), format!("{:?}", recorded.holder));
    caller
}

/// Returns in what a token is wider than what its issuer may issue; `None`: in nothing.
pub(super) fn wider(issuer: &Token, target: &Token) -> Option<&'static str> {
    let holds =
        |token: &Token, word| token.scopes.reserved().contains(ReservedScope::from_word(word).unwrap());
    let (writes, empty) = (holds(issuer, "tokend:write"), Grant::default());
    let bounded = !writes || issuer.grant.is_some();
    let grant = issuer.grant.as_ref().unwrap_or(&empty);
    let probes = |scopes: &Scopes| PROBES.map(|probe| scopes.cover(&Scope::parse(probe).unwrap()));
    let admitted =
        |networks: &Networks| ADDRESSES.map(|address| networks.admit(Some(address.parse().unwrap())));
    let within =
        |outer: &[bool], inner: &[bool]| outer.iter().zip(inner).all(|(outer, inner)| *outer || !inner);
    let privileged = !target.scopes.reserved().is_empty();
    let own_end =
        |end: Option<OffsetDateTime>| issuer.expire_time.is_none_or(|own| end.is_some_and(|end| end <= own));

    if issuer.organization_id != target.organization_id {
        return Some("organization");
    }
    for word in ["tokend:self", "tokend:write", "tokend:read"] {
        let allowed = match word {
            "tokend:self" if bounded => writes && grant.may_grant_self,
            "tokend:self" => true,
            "tokend:write" if bounded => writes && target.grant.is_some(),
            word => !bounded && holds(issuer, word),
        };
        if holds(target, word) && !allowed {
            return Some("reserved scope");
        }
    }
    if privileged && !own_end(target.expire_time) {
        return Some("life of a privileged token");
    }
    if privileged && !within(&admitted(&issuer.allowed_cidrs), &admitted(&target.allowed_cidrs)) {
        return Some("networks of a privileged token");
    }
    if !bounded {
        return None;
    }
    let anyone = writes && !grant.users.is_empty();
    let includes = |user: &UserId| if anyone { grant.users.include(user) } else { *user == issuer.user_id };
    if !includes(&target.user_id) || target.owner_kind != issuer.owner_kind {
        return Some("user");
    }
    let scopes = if grant.scopes.is_empty() { &issuer.scopes } else { &grant.scopes };
    if !within(&probes(scopes), &probes(&target.scopes)) {
        return Some("scopes");
    }
    let lives = match grant.longest_lifetime {
        Some(longest) => target.expire_time.is_some_and(|end| end - target.create_time <= longest),
        None => own_end(target.expire_time),
    };
    if !lives {
        return Some("life");
    }
    let from = if grant.networks.is_empty() { &issuer.allowed_cidrs } else { &grant.networks };
    if !within(&admitted(from), &admitted(&target.allowed_cidrs)) {
        return Some("networks");
    }
    let Some(inner) = &target.grant else { return None };
    let all = USERS.iter().chain(&["nobody"]).map(|user| UserId::parse(user).unwrap());
    if !all.into_iter().all(|user| includes(&user) || !inner.users.include(&user)) {
        return Some("users of the grant");
    }
    if !within(&probes(scopes), &probes(&inner.scopes)) {
        return Some("scopes of the grant");
    }
    let lasts = |own: Option<Duration>| match (own, inner.longest_lifetime) {
        (_, None) => true,
        (Some(own), Some(longest)) => longest <= own,
        (None, Some(_)) => issuer.expire_time.is_none(),
    };
    if !lasts(grant.longest_lifetime) {
        return Some("lifetime of the grant");
    }
    if !inner.networks.is_empty() && !within(&admitted(from), &admitted(&inner.networks)) {
        return Some("networks of the grant");
    }
    (inner.may_grant_self && !(writes && grant.may_grant_self)).then_some("tokend:self by the grant")
}

/// Returns a token nearer to what its issuer may issue, in the fields that `kept` says.
pub(super) fn nearer(issuer: &Token, target: Token, kept: u8) -> Token {
    let keep = |bit: u8| kept & 1 << bit != 0;
    let mut near = target;
    if keep(0) {
        near.organization_id = issuer.organization_id.clone();
        near.user_id = issuer.user_id.clone();
        near.owner_kind = issuer.owner_kind;
    }
    if keep(1) {
        near.expire_time = Some(NOW + Duration::DAY);
    }
    if keep(2) {
        near.allowed_cidrs = Networks::new(parsed(&NETWORKS[2..3], Network::parse)).unwrap();
    }
    if keep(3) {
        near.grant = None;
    }
    near
}

/// Tries many cases; `accepted` counts those in which the act was allowed.
pub(super) fn try_all<S: Strategy>(
    cases: S,
    accepted: &Cell<u32>,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    runner.run(&cases, test).unwrap();
    assert!(accepted.get() > CASES / 200, "only {} acts were allowed", accepted.get());
}

pub(super) fn issues(issuer: &Caller, target: &Token) -> bool {
    issuer.extent(Permission::WriteOwn).is_ok_and(|extent| extent.includes(target))
        && issuer.may_issue(target).is_ok()
}

#[test]
fn an_issued_token_is_never_wider_than_its_issuer_may_issue() {
    let accepted = Cell::new(0);
    try_all((actors(), tokens(), any::<u8>()), &accepted, |(issuer, target, kept)| {
        let target = nearer(&issuer, target, kept);
        let (issuing, reached) = (caller(&issuer), issues(&caller(&issuer), &target));
        // A bound holds by itself, also without the reach that is checked before it.
        if reached || issuing.bounds().is_some() && issuing.may_issue(&target).is_ok() {
            accepted.set(accepted.get() + 1);
            prop_assert_eq!(wider(&issuer, &target), None);
        }
        Ok(())
    });
}

#[test]
fn an_issued_token_issues_nothing_that_its_issuer_may_not_issue() {
    let accepted = Cell::new(0);
    try_all((actors(), deputies(), tokens()), &accepted, |(issuer, deputy, target)| {
        // Two that are near enough to each other that the one often issues the other.
        let issuer = Token { allowed_cidrs: Networks::default(), ..issuer };
        let deputy = Token {
            organization_id: issuer.organization_id.clone(),
            user_id: issuer.user_id.clone(),
            owner_kind: issuer.owner_kind,
            ..deputy
        };
        let target = Token { organization_id: deputy.organization_id.clone(), ..target };
        if issues(&caller(&issuer), &deputy) && issues(&caller(&deputy), &target) {
            accepted.set(accepted.get() + 1);
            prop_assert_eq!(wider(&issuer, &target), None);
            prop_assert!(issues(&caller(&issuer), &target));
        }
        Ok(())
    });
}

#[test]
fn a_change_starts_and_ends_within_what_a_bounded_caller_may_issue() {
    let accepted = Cell::new(0);
    try_all((actors(), tokens(), tokens(), any::<u8>()), &accepted, |(actor, before, other, kept)| {
        let before = nearer(&actor, before, kept >> 4);
        let keep = |bit: u8| kept & 1 << bit != 0;
        let mut after = before.clone();
        after.scopes = if keep(0) { after.scopes } else { other.scopes };
        after.expire_time = if keep(1) { after.expire_time } else { other.expire_time };
        after.allowed_cidrs = if keep(2) { after.allowed_cidrs } else { other.allowed_cidrs };
        after.grant = if keep(3) { after.grant } else { other.grant };
        let caller = caller(&actor);
        let reached = caller.extent(Permission::WriteOwn).unwrap().includes(&before);
        if reached && caller.may_change(&before, &after).is_ok() {
            accepted.set(accepted.get() + 1);
            if caller.bounds().is_some() {
                prop_assert_eq!((wider(&actor, &before), wider(&actor, &after)), (None, None));
            } else if !after.scopes.reserved().is_empty()
                && (wider(&actor, &before).is_none() || before.grant != after.grant)
            {
                prop_assert_eq!(wider(&actor, &after), None);
            }
        }
        Ok(())
    });
}

#[test]
fn a_bounded_caller_ends_only_tokens_of_its_users_that_are_not_more_privileged() {
    let accepted = Cell::new(0);
    try_all((actors(), tokens(), any::<u8>()), &accepted, |(actor, target, kept)| {
        let target = nearer(&actor, target, kept);
        let caller = caller(&actor);
        let reached = caller.extent(Permission::WriteOwn).unwrap().includes(&target);
        if !reached || caller.may_manage(&target).is_err() {
            return Ok(());
        }
        accepted.set(accepted.get() + 1);
        prop_assert_eq!(&target.organization_id, &actor.organization_id);
        prop_assert!(actor.scopes.reserved().lacking(target.scopes.reserved()).is_none());
        if caller.bounds().is_some() {
            let plain = Token { create_time: NOW, ..actor.clone() };
            let user_is_reached = Token {
                user_id: target.user_id.clone(),
                owner_kind: target.owner_kind,
                scopes: Scopes::default(),
                grant: None,
                expire_time: Some(NOW + Duration::SECOND),
                allowed_cidrs: Networks::new(vec![Network::parse("10.1.2.3/32").unwrap()]).unwrap(),
                ..plain
            };
            prop_assert_ne!(wider(&actor, &user_is_reached), Some("user"));
            if target.scopes.reserved().contains(ReservedScope::Write) {
                prop_assert_eq!(wider(&actor, &target), None);
            }
        }
        Ok(())
    });
}

#[test]
fn all_tokens_of_a_user_are_ended_at_once_only_by_a_caller_that_may_end_each() {
    let accepted = Cell::new(0);
    try_all((actors(), tokens(), any::<u8>()), &accepted, |(actor, target, kept)| {
        let target = nearer(&actor, target, kept);
        let caller = caller(&actor);
        let of_user = caller.require(Permission::WriteAll).is_ok()
            && caller.organization(Some(target.organization_id.clone())).is_ok()
            && caller.may_end_all(&target.user_id, target.owner_kind).is_ok();
        if of_user && caller.may_end_reserved(target.scopes.reserved()).is_ok() {
            accepted.set(accepted.get() + 1);
            prop_assert!(caller.extent(Permission::WriteOwn).unwrap().includes(&target));
            prop_assert_eq!(caller.may_manage(&target), Ok(()));
        }
        Ok(())
    });
}

#[test]
fn a_list_has_exactly_the_tokens_that_the_caller_may_see() {
    let accepted = Cell::new(0);
    try_all((actors(), tokens(), any::<u8>()), &accepted, |(actor, target, kept)| {
        let target = nearer(&actor, target, kept >> 3);
        let caller = caller(&actor);
        let named = |bit: u8| kept & 1 << bit != 0;
        let organization = named(0).then(|| target.organization_id.clone());
        let user = named(1).then(|| target.user_id.clone());
        let kind = named(2).then_some(target.owner_kind);
        let listed = match (caller.listed_owner(organization, user), caller.listed_kind(kind)) {
            (Ok((organization, user)), Ok(kind)) => {
                organization.is_none_or(|id| id == target.organization_id)
                    && user.is_none_or(|id| id == target.user_id)
                    && kind.is_none_or(|kind| kind == target.owner_kind)
            }
            _ => false,
        };
        accepted.set(accepted.get() + u32::from(listed));
        prop_assert_eq!(listed, caller.may_see(&target));
        Ok(())
    });
}
