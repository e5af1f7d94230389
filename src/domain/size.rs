//! Upper bounds for the bytes of tokens and events in responses, so that a page stays below the
//! clients' message limit. Called when pages are made, and before, to reserve memory for them. Based on
//! the limits of the fields.

#![cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "lengths of data in memory"))]

use super::event::TokenEvent;
use super::grant::Grant;
use super::token::{LastRefusal, Token, Value};

/// The maximum bytes of the items on a page; a page that would be larger ends earlier.
pub const MAX_PAGE_BYTES: usize = 2 << 20;

/// The maximum bytes of a token in a response, by [`of_token`].
pub const LARGEST_TOKEN: usize = 29 << 10;

/// The maximum bytes of an event in a response, by [`of_event`].
pub const LARGEST_EVENT: usize = 58 << 10;

/// Returns how many items with these sizes, from the first, fit into a page; at least one if there is
/// one.
#[must_use]
pub fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let mut number = 0;
    for size in sizes {
        bytes += size;
        if number > 0 && bytes > MAX_PAGE_BYTES {
            break;
        }
        number += 1;
    }
    number
}

// A length-delimited protobuf field costs its content, a tag and a length: under 6 bytes here.
const FRAME: usize = 6;

fn text(text: &str) -> usize {
    text.len() + FRAME
}

/// Returns an upper bound of the token's size in a response, in bytes.
#[must_use]
pub fn of_token(token: &Token) -> usize {
    // A time is two varints with a tag each, of 10 and 5 bytes at most.
    const TIME: usize = FRAME + 17;
    // The state and the token's own frame.
    const FIXED: usize = 2 * FRAME;
    let fields = token.fields();
    let sizes = fields.iter().map(|field| match &field.value {
        Value::Text(value) => text(value),
        Value::Scopes(scopes) => scopes.iter().map(|scope| text(scope.as_str())).sum(),
        Value::Networks(networks) => networks.iter().map(|network| text(&network.to_string())).sum(),
        Value::Labels(labels) => labels.iter().map(|(key, value)| text(key) + text(value) + FRAME).sum(),
        Value::Time(_) => TIME,
        Value::Grant(grant) => grant.map_or(0, of_grant),
        Value::OwnerKind(_) => FRAME,
        Value::Refusal(refusal) => refusal.map_or(0, of_refusal),
    });
    FIXED + sizes.sum::<usize>()
}

fn of_refusal(refusal: &LastRefusal) -> usize {
    // The time, the verdict, an IPv6 address and the refusal's own frame.
    const FIXED: usize = 4 * FRAME + 17 + 45;
    FIXED + refusal.missing_scopes.iter().map(|scope| text(scope)).sum::<usize>()
}

fn of_grant(grant: &Grant) -> usize {
    // The flags and the longest lifetime, and the grant's own frame.
    const FIXED: usize = 32;
    let users = grant.users.ids().chain(grant.users.prefixes());
    FIXED
        + grant.scopes.iter().map(|scope| text(scope.as_str())).sum::<usize>()
        + users.map(text).sum::<usize>()
        + grant.networks.iter().map(|network| text(&network.to_string())).sum::<usize>()
}

/// Returns an upper bound of the event's size in a response, in bytes.
#[must_use]
pub fn of_event(event: &TokenEvent) -> usize {
    // The fixed-size fields: ids, kind, time, trace and the event's own frame.
    const FIXED: usize = 128;
    let value = |value: &Option<String>| value.as_deref().map_or(0, text);
    FIXED
        + text(event.organization_id.as_str())
        + text(event.user_id.as_str())
        + text(&event.actor)
        + event.acting_user.as_ref().map_or(0, |(user, _)| text(user))
        + event
            .changes
            .iter()
            .map(|change| text(&change.field) + value(&change.old) + value(&change.new) + FRAME)
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Attribution, EventKind, field_changes};
    use crate::domain::fields::MAX_LABELS;
    use crate::domain::grant::Users;
    use crate::domain::scope::MAX_SCOPES;
    use crate::domain::{
        Labels, Network, Networks, OrganizationId, PlanName, Principal, RevokeReason, Scope, Scopes,
        TokenName, UserId,
    };
    use tokend_core::domain::token::MAX_MISSING_SCOPES;
    use tokend_core::fixtures::token;

    #[test]
    fn the_largest_token_and_event_have_the_calculated_size() {
        let mut largest = token(&[]);
        let four_bytes = '\u{10348}';
        largest.organization_id = OrganizationId::parse(&"o".repeat(200)).unwrap();
        largest.user_id = UserId::parse(&"u".repeat(200)).unwrap();
        largest.name = TokenName::parse(&four_bytes.to_string().repeat(100)).unwrap();
        let scopes = (10..10 + MAX_SCOPES).map(|number| format!("{number}{}", "s".repeat(98)));
        let scopes = scopes.map(|text| Scope::parse(&text).unwrap()).collect();
        largest.scopes = Scopes::new(scopes).unwrap();
        let labels = (10..10 + MAX_LABELS).map(|n| (format!("{n}{}", "k".repeat(61)), "v".repeat(255)));
        largest.labels = Labels::parse(labels).unwrap();
        let network = |n| Network::parse(&format!("2001:db8:1111:2222:3333:4444:5555:{n:x}/128")).unwrap();
        largest.allowed_cidrs = Networks::new((0x1000..0x1000 + 64).map(network).collect()).unwrap();
        largest.created_by = Principal::parse(&format!("cert:{}", "a".repeat(295))).unwrap();
        largest.revoke_time = Some(largest.create_time);
        largest.revoke_reason = Some(RevokeReason::parse(&"r".repeat(500)).unwrap());

        largest.last_refusal = Some(Box::new(LastRefusal {
            time: largest.create_time,
            verdict: 7,
            missing_scopes: vec!["s".repeat(100); MAX_MISSING_SCOPES],
            client_ip: Some(std::net::Ipv6Addr::from_bits(u128::MAX).into()),
        }));

        // The shortest texts: each has a frame.
        let users =
            (10..10 + 64).map(|n| UserId::parse(&format!("{n}{}", "u".repeat(26))).unwrap()).collect();
        let scopes =
            (10..10 + 64).map(|n| Scope::parse(&format!("{n}{}", "s".repeat(26))).unwrap()).collect();
        largest.plan = Some(PlanName::parse(&"p".repeat(63)).unwrap());
        largest.rotated_from = Some(largest.id);
        largest.superseded_by = Some(largest.id);
        largest.family_id = Some(largest.id);
        largest.grant = Some(Grant {
            scopes: Scopes::new(scopes).unwrap(),
            users: Users::new(users, Vec::new(), false).unwrap(),
            ..Grant::default()
        });
        assert_eq!(largest.grant.as_ref().unwrap().check(), Ok(()));

        let mut changes = field_changes(None, &largest);
        for change in &mut changes {
            change.old = change.new.clone();
        }
        let event = TokenEvent {
            id: i64::MAX,
            event_time: largest.create_time,
            kind: EventKind::Updated,
            token_id: Some(largest.id),
            organization_id: largest.organization_id.clone(),
            user_id: largest.user_id.clone(),
            owner_kind: largest.owner_kind,
            actor: format!("cert:{}", "a".repeat(295)),
            acting_user: Some(("p".repeat(200), Attribution::Claimed)),
            trace_id: Some([255; 16]),
            changes,
        };

        let (token, event) = (of_token(&largest), of_event(&event));
        assert!((LARGEST_TOKEN * 9 / 10..LARGEST_TOKEN).contains(&token), "{token}");
        assert!((LARGEST_EVENT * 8 / 10..LARGEST_EVENT).contains(&event), "{event}");
    }
}
