//! The same of portal sessions: nothing in them is wider than their terms, or than what the token that vouches may issue.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::domain::{Portal, PortalTerms};

/// Returns the caller of a portal session, if this token may vouch for its person.
fn in_portal(vouching: &Token, user: &str, scopes: &[&str]) -> Option<Caller> {
    let terms = PortalTerms {
        organization_id: OrganizationId::parse("acme").unwrap(),
        user_id: UserId::parse(user).unwrap(),
        scopes: Scopes::new(parsed(scopes, Scope::parse)).unwrap(),
    };
    let portal = Arc::new(Portal { session_id: Uuid::nil(), token_id: vouching.id, terms });
    let found = Caller::in_portal(&portal, Caller::vouching_token(vouching, NOW), None).ok();
    let record = Record::new(vouching, Mac { key_id: KeyId::from_bytes([0; 8]), tag: [0; 32] });
    let recorded = Caller::in_portal(&portal, Caller::vouching_record(vouching.id, &record, NOW), None).ok();
    assert_eq!(found.is_some(), recorded.is_some());
    found
}

/// Returns in what a token is wider than its issuer in a portal session may issue.
fn wider_in_portal(vouching: &Token, user: &str, scopes: &[&str], target: &Token) -> Option<&'static str> {
    let given = Scopes::new(parsed(scopes, Scope::parse)).unwrap();
    let probes = PROBES.map(|probe| Scope::parse(probe).unwrap());
    if target.organization_id.as_str() != "acme" {
        return Some("organization of the session");
    }
    if target.user_id.as_str() != user || target.owner_kind != OwnerKind::User {
        return Some("user of the session");
    }
    if !target.scopes.reserved().is_empty() {
        return Some("reserved scope in a session");
    }
    if probes.iter().any(|probe| target.scopes.cover(probe) && !given.cover(probe)) {
        return Some("scopes of the session");
    }
    wider(vouching, target)
}

fn sessions() -> impl Strategy<Value = (Token, &'static str, Vec<&'static str>)> {
    (actors(), prop::sample::select(&USERS[..]), some(&SCOPES[..6])).prop_map(|(vouching, user, scopes)| {
        let organization_id = OrganizationId::parse("acme").unwrap();
        (Token { organization_id, ..vouching }, user, scopes)
    })
}

/// Returns a target that is often the session's own.
fn near(vouching: &Token, user: &str, target: Token, kept: u8) -> Token {
    let mut near = nearer(vouching, target, kept & 0b1110);
    if kept & 1 != 0 {
        near.organization_id = vouching.organization_id.clone();
        near.user_id = UserId::parse(user).unwrap();
    }
    if kept & 16 != 0 {
        near.scopes = Scopes::default();
    }
    near
}

#[test]
fn an_issued_token_of_a_portal_session_is_never_wider_than_its_terms_or_than_what_vouches() {
    let accepted = Cell::new(0);
    try_all((sessions(), tokens(), any::<u8>()), &accepted, |((vouching, user, scopes), target, kept)| {
        let target = near(&vouching, user, target, kept);
        let Some(caller) = in_portal(&vouching, user, &scopes) else { return Ok(()) };
        prop_assert!(vouching.scopes.reserved().contains(ReservedScope::Write));
        prop_assert!(!scopes.iter().any(|scope| scope.starts_with("tokend:")));
        if issues(&caller, &target) {
            accepted.set(accepted.get() + 1);
            prop_assert_eq!(wider_in_portal(&vouching, user, &scopes, &target), None);
        }
        // A bound holds by itself, also without the reach that is checked before it.
        if caller.may_issue(&target).is_ok() {
            prop_assert_eq!(wider_in_portal(&vouching, user, &scopes, &target), None);
        }
        Ok(())
    });
}

#[test]
fn a_change_in_a_portal_session_starts_and_ends_within_them() {
    let accepted = Cell::new(0);
    let cases = (sessions(), tokens(), tokens(), any::<(u8, u8)>());
    try_all(cases, &accepted, |((vouching, user, scopes), before, other, kept)| {
        let before = near(&vouching, user, before, kept.0);
        let mut after = before.clone();
        if kept.1 & 1 != 0 {
            after.scopes = other.scopes;
        }
        if kept.1 & 2 != 0 {
            after.expire_time = other.expire_time;
        }
        if kept.1 & 4 != 0 {
            after.allowed_cidrs = other.allowed_cidrs;
        }
        if kept.1 & 8 != 0 {
            after.grant = other.grant;
        }
        let Some(caller) = in_portal(&vouching, user, &scopes) else { return Ok(()) };
        if caller.may_change(&before, &after).is_ok() {
            accepted.set(accepted.get() + 1);
            for token in [&before, &after] {
                prop_assert_eq!(wider_in_portal(&vouching, user, &scopes, token), None);
            }
        }
        Ok(())
    });
}

#[test]
fn a_person_in_a_portal_session_ends_only_own_tokens_without_access_to_tokend_and_that_what_vouches_may_end()
{
    let accepted = Cell::new(0);
    try_all((sessions(), tokens(), any::<u8>()), &accepted, |((vouching, user, scopes), target, kept)| {
        let target = near(&vouching, user, target, kept);
        let Some(caller) = in_portal(&vouching, user, &scopes) else { return Ok(()) };
        if caller.extent(Permission::WriteOwn).unwrap().includes(&target)
            && caller.may_manage(&target).is_ok()
        {
            accepted.set(accepted.get() + 1);
            prop_assert_eq!((target.organization_id.as_str(), target.user_id.as_str()), ("acme", user));
            let access = [ReservedScope::Write, ReservedScope::Read, ReservedScope::Root];
            prop_assert!(!access.iter().any(|scope| target.scopes.reserved().contains(*scope)));
            let holder = super::caller(&vouching);
            prop_assert!(holder.may_manage(&target).is_ok());
        }
        Ok(())
    });
}
