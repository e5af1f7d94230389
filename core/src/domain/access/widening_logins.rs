//! That a login is never wider than the token of its session, and issues nothing that this token could not issue.

use std::cell::Cell;

use proptest::prelude::*;
use time::Duration;

use super::widening::{NOW, SCOPES, actors, caller, issues, nearer, parsed, some, tokens, try_all, wider};
use super::*;
use crate::domain::login::{Host, LoginRequest};
use crate::domain::scope::{Scope, Scopes};

fn requests() -> impl Strategy<Value = LoginRequest> {
    (some(&SCOPES[..5]), 1..25_i64).prop_map(|(scopes, hours)| LoginRequest {
        host: Host::parse("laptop").unwrap(),
        lifetime: Duration::hours(hours),
        scopes: Scopes::new(parsed(&scopes, Scope::parse)).unwrap(),
    })
}

#[test]
fn a_login_and_what_it_issues_is_never_wider_than_its_session_s_token() {
    let accepted = Cell::new(0);
    try_all((actors(), requests(), tokens(), any::<u8>()), &accepted, |(own, request, target, kept)| {
        let login = request.token(&own, TokenId::from_bytes([9; 16]), NOW).unwrap();
        if caller(&own).may_delegate(&login).is_err() {
            return Ok(());
        }
        let end = login.expire_time.unwrap();
        prop_assert!(own.expire_time.is_none_or(|own| end <= own) && end <= NOW + Duration::DAY);
        prop_assert!(own.allowed_cidrs.cover(&login.allowed_cidrs));
        prop_assert_eq!(login.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(), ["tokend:self"]);
        prop_assert_eq!((&login.user_id, login.owner_kind), (&own.user_id, own.owner_kind));
        // Also in its last moment.
        let create_time = if kept & 1 << 7 == 0 { NOW } else { end - Duration::SECOND };
        let target = Token { create_time, ..nearer(&login, target, kept) };
        if issues(&caller(&login), &target) {
            accepted.set(accepted.get() + 1);
            prop_assert!(target.scopes.reserved().is_empty());
            prop_assert_eq!(wider(&own, &target), None);
            prop_assert!(issues(&caller(&own), &target));
        }
        Ok(())
    });
}

#[test]
fn only_a_token_that_manages_its_own_user_s_tokens_has_logins() {
    let request = LoginRequest {
        host: Host::parse("laptop").unwrap(),
        lifetime: Duration::HOUR,
        scopes: Scopes::default(),
    };
    for (scopes, allowed) in [
        (&["tokend:self"][..], true),
        (&["tokend:write"], true),
        (&["tokend:root"], true),
        (&["tokend:read"], false),
        (&["tokend:verify:any", "a"], false),
    ] {
        let own = crate::fixtures::token(scopes);
        let login = request.token(&own, TokenId::from_bytes([9; 16]), own.create_time).unwrap();
        let caller = Caller::from_token(&own, None, own.create_time).unwrap();
        assert_eq!(caller.may_delegate(&login).is_ok(), allowed, "{scopes:?}");
        for more in ["tokend:read", "a"] {
            let scopes = login.scopes.iter().cloned().chain([Scope::parse(more).unwrap()]);
            let wider = Token { scopes: Scopes::new(scopes.collect()).unwrap(), ..login.clone() };
            assert!(caller.may_delegate(&wider).is_err(), "{scopes:?} {more}", scopes = own.scopes);
        }
    }
}

#[test]
fn a_login_with_wider_networks_or_longer_lifetimes_is_refused() {
    let request = LoginRequest {
        host: Host::parse("laptop").unwrap(),
        lifetime: Duration::HOUR,
        scopes: Scopes::default(),
    };
    let network = |text: &str| Networks::new(parsed(&[text], crate::domain::Network::parse)).unwrap();
    let own = Token {
        create_time: NOW,
        expire_time: Some(NOW + Duration::DAY),
        allowed_cidrs: network("10.0.0.0/8"),
        ..crate::fixtures::token(&["tokend:self", "a"])
    };
    let caller = Caller::from_token(&own, Some("10.0.0.1".parse().unwrap()), NOW).unwrap();
    let login = request.token(&own, TokenId::from_bytes([9; 16]), NOW).unwrap();
    assert_eq!(caller.may_delegate(&login), Ok(()));
    let (lasting, grant) =
        (|grant| Token { grant: Some(grant), ..login.clone() }, login.grant.clone().unwrap());
    let longest = grant.longest_lifetime.unwrap() + Duration::SECOND;
    let longer = lasting(crate::domain::grant::Grant { longest_lifetime: Some(longest), ..grant });
    assert_eq!(caller.may_delegate(&longer), Err(AccessError::Exceeds(Bound::Lifetime)));
    for allowed_cidrs in [Networks::default(), network("192.0.2.0/24")] {
        let wider = Token { allowed_cidrs, ..login.clone() };
        assert_eq!(caller.may_delegate(&wider), Err(AccessError::WiderNetworks));
    }
}
