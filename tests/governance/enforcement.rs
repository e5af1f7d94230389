//! Policies and existing tokens: the dry run, and enforcement, which does what the dry run reported.

use std::collections::HashSet;

use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CheckPolicyRequest, CreateTokenRequest, EnforcePolicyRequest, EnforcePolicyResponse,
    ListTokenEventsRequest, ListTokensRequest, Policy, PolicyBreach, RotateTokenRequest, Token,
    TokenEventKind, TokenState, UpdateTokenRequest, Verdict, WatchTokensRequest, update_token_request,
};
use tonic::Code;

use super::policy::{seconds, set};
use crate::support::assorted_tokens::tokens_of_all_sorts;
use crate::support::client::{
    Client, created, created_with, mask, nanos, ordinary, rotated, rotation, texts, verified,
};
use crate::support::replica::Replica;
use crate::support::status::refused;

const DAY: i64 = 86_400;

/// Returns the breaches of a policy, over all pages; `None`: of the organization's own policy.
async fn checked(client: &mut Client, policy: Option<Policy>) -> Vec<PolicyBreach> {
    let mut request = CheckPolicyRequest { policy, ..Default::default() };
    let mut breaches = Vec::new();
    loop {
        let page = client.check_policy(request.clone()).await.unwrap().into_inner();
        breaches.extend(page.breaches);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return breaches;
        }
    }
}

async fn enforced_page(root: &mut Client, page_token: &str) -> EnforcePolicyResponse {
    let request = EnforcePolicyRequest { page_token: page_token.to_owned(), ..Default::default() };
    root.enforce_policy(request).await.unwrap().into_inner()
}

/// Enforces the default organization's policy, over all pages.
async fn enforced(root: &mut Client) -> Vec<PolicyBreach> {
    let (mut breaches, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = enforced_page(root, &page_token).await;
        breaches.extend(page.breaches);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return breaches;
        }
    }
}

/// Lists all tokens except the root token, which is used all the time.
async fn all(root: &mut Client) -> Vec<Token> {
    let mut request = ListTokensRequest { page_size: 1000, ..Default::default() };
    let mut tokens = Vec::new();
    loop {
        let page = root.list_tokens(request.clone()).await.unwrap().into_inner();
        tokens.extend(page.tokens.into_iter().filter(|token| token.user_id != "root"));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return tokens;
        }
    }
}

/// Creates tokens of all kinds that fill several pages, and a rotated one.
async fn all_sorts(replica: &Replica) {
    tokens_of_all_sorts(&replica.installation.database).await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    let graced = RotateTokenRequest { grace_period: Some(seconds(20 * DAY)), ..rotation(&id) };
    rotated(&mut root, graced).await;
}

fn strict() -> Policy {
    Policy {
        longest_lifetime: Some(seconds(40 * DAY)),
        expiration_required: true,
        longest_grace: Some(seconds(3600)),
        most_active_tokens_per_user: 5,
        allowed_scopes: texts(&["repo:*"]),
        ..Policy::default()
    }
}

#[tokio::test]
async fn a_dry_run_lists_exactly_what_enforcement_then_does() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    all_sorts(&replica).await;
    let before = all(&mut root).await;

    let tried = checked(&mut root, Some(strict())).await;
    assert!(all(&mut root).await == before, "a dry run changes nothing");
    set(&mut root, strict()).await;
    assert!(checked(&mut root, None).await == tried, "with the policy that is set");
    let done = enforced(&mut root).await;

    assert!(done == tried, "enforcement");
    let broken: HashSet<&str> = done.iter().flat_map(|breach| &breach.rules).map(String::as_str).collect();
    assert_eq!(broken.len(), 5, "{broken:?}");
    let after = all(&mut root).await;
    for old in &before {
        let new = after.iter().find(|new| new.id == old.id).unwrap();
        let Some(reported) = done.iter().find(|breach| breach.token.as_ref().unwrap().id == old.id) else {
            assert_eq!(new, old, "what keeps the policy is not touched");
            continue;
        };
        assert_eq!(reported.token.as_ref(), Some(old));
        if reported.revoked {
            assert_eq!(new.state(), TokenState::Revoked);
            assert!(new.revoke_reason.starts_with("policy: "));
            continue;
        }
        let scopes =
            old.scopes.iter().filter(|scope| !reported.removed_scopes.contains(scope)).cloned().collect();
        let expire_time = reported.new_expire_time.or(old.expire_time);
        assert_eq!(*new, Token { scopes, expire_time, ..old.clone() });
    }
    assert_eq!(checked(&mut root, None).await, []);
    assert_eq!(enforced(&mut root).await, []);
    let beyond = "SELECT count(*) FROM (SELECT user_id FROM tokens t
        WHERE revoke_time IS NULL AND (expire_time IS NULL OR expire_time > now()) AND NOT scopes @> '{tokend:root}'
            AND NOT EXISTS (SELECT FROM tokens s WHERE s.rotated_from = t.id)
        GROUP BY user_id HAVING count(*) > 5) AS beyond";
    assert_eq!(replica.installation.database.count(beyond).await, 0);
}

#[tokio::test]
async fn enforcement_takes_effect_at_once_and_is_reported_and_recorded() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let lost = created(&mut root, ordinary()).await;
    let kept = created_with(&mut root, "", &["repo:a", "user:b"]).await;
    for made in [&lost, &kept] {
        assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Valid);
    }
    let policy =
        Policy { most_active_tokens_per_user: 1, allowed_scopes: texts(&["repo:*"]), ..Policy::default() };
    set(&mut root, policy).await;
    let mut stream = root.clone().watch_tokens(WatchTokensRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();

    let page = enforced_page(&mut root, "").await;

    assert_eq!(verified(&mut root, &lost.secret, &[]).await.verdict(), Verdict::Revoked);
    let narrowed = verified(&mut root, &kept.secret, &["user:b"]).await;
    assert_eq!(narrowed.verdict(), Verdict::MissingScope);
    let token = narrowed.token.unwrap();
    let events = async |id: String| {
        let request = ListTokenEventsRequest { token_id: id, page_size: 1, ..Default::default() };
        let mut events = replica.root().list_token_events(request).await.unwrap().into_inner().events;
        events.remove(0)
    };
    let updated = events(token.id.clone()).await;
    assert_eq!((updated.kind(), updated.changes[0].field.as_str()), (TokenEventKind::Updated, "scopes"));
    assert_eq!(updated.actor, replica.installation.root_secret[5..27]);
    let revoked = events(lost.token.unwrap().id).await;
    assert_eq!(revoked.kind(), TokenEventKind::Revoked);
    assert_eq!(revoked.changes[0].new_value, "policy: most_active_tokens_per_user");
    assert!(nanos(page.effective_time.as_ref()) > nanos(revoked.event_time.as_ref()));
    let mut reported = HashSet::new();
    while reported.len() < 2 {
        let message = stream.message().await.unwrap().unwrap();
        reported.extend(message.changes.into_iter().map(|change| change.token_id));
    }
    assert_eq!(reported, HashSet::from([token.id, revoked.token_id]));
}

#[tokio::test]
async fn enforcement_continues_where_it_was_interrupted_or_restarts() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    all_sorts(&replica).await;
    set(&mut root, strict()).await;
    let reported = checked(&mut root, None).await;

    let first = enforced_page(&mut root, "").await;
    assert!(!first.next_page_token.is_empty() && first.breaches.len() < reported.len());
    let mut done = first.breaches.clone();
    // The second page's response is lost, and the page is requested again.
    let second = enforced_page(&mut root, &first.next_page_token).await;
    done.extend(second.breaches);
    assert_eq!(enforced_page(&mut root, &first.next_page_token).await.breaches, []);
    done.extend(enforced(&mut root).await);

    assert!(done == reported);
    assert_eq!(checked(&mut root, None).await, []);
}

#[tokio::test]
async fn a_page_token_is_refused_by_another_call_and_another_policy() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    all_sorts(&replica).await;
    set(&mut root, strict()).await;
    let check = |policy, page_token| CheckPolicyRequest { policy, page_token, ..Default::default() };
    let page = root.check_policy(check(None, String::new())).await.unwrap().into_inner();
    let checking = page.next_page_token;
    let enforcing = enforced_page(&mut root, "").await.next_page_token;

    let other = root.check_policy(check(Some(Policy::default()), checking.clone())).await;
    refused(other, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let request = |page_token: &str, organization_id: &str| EnforcePolicyRequest {
        page_token: page_token.to_owned(),
        organization_id: organization_id.to_owned(),
    };
    for wrong in [request(&checking, ""), request(&enforcing, "acme"), request("?", "")] {
        refused(root.enforce_policy(wrong).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    }
    set(&mut root, Policy { most_active_tokens_per_user: 6, ..strict() }).await;
    let outcome = root.enforce_policy(request(&enforcing, "")).await;
    refused(outcome, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let outcome = root.check_policy(check(None, checking)).await;
    refused(outcome, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn the_newest_tokens_stay_and_ending_tokens_do_not_count() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut ids = Vec::new();
    for eternal in [false, false, false, true] {
        let expiration = if eternal { Expiration::NoExpiration(true) } else { Expiration::Ttl(seconds(DAY)) };
        let request = CreateTokenRequest { expiration: Some(expiration), ..ordinary() };
        ids.push(created(&mut root, request).await.token.unwrap().id);
    }
    set(&mut root, Policy { most_active_tokens_per_user: 1, expiration_required: true, ..Policy::default() })
        .await;

    let done = enforced(&mut root).await;

    let reported: Vec<(String, bool)> =
        done.into_iter().map(|breach| (breach.token.unwrap().id, breach.revoked)).collect();
    let expected = [(ids[0].clone(), true), (ids[1].clone(), true), (ids[3].clone(), true)];
    assert_eq!(reported, expected, "the newest has no end and may not stay; the third is the newest then");
}

#[tokio::test]
async fn concurrent_rotations_leave_exactly_the_allowed_number() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut ids = Vec::new();
    for _ in 0..16 {
        ids.push(created(&mut root, ordinary()).await.token.unwrap().id);
    }
    set(&mut root, Policy { most_active_tokens_per_user: 8, ..Policy::default() }).await;

    let rotations: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let mut root = replica.root();
            let request = RotateTokenRequest { grace_period: Some(seconds(3600)), ..rotation(&id) };
            tokio::spawn(async move { root.rotate_token(request).await.is_ok() })
        })
        .collect();
    enforced(&mut root).await;
    for one in rotations {
        one.await.unwrap();
    }

    let counted = "SELECT count(*) FROM tokens t WHERE user_id = 'ada' AND revoke_time IS NULL
        AND NOT EXISTS (SELECT FROM tokens s WHERE s.rotated_from = t.id)";
    assert_eq!(replica.installation.database.count(counted).await, 8);
}

#[tokio::test]
async fn a_superseded_token_with_a_later_expiration_is_shortened_to_its_grace() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let old = created(&mut root, ordinary()).await;
    let id = old.token.unwrap().id;
    let graced = RotateTokenRequest { grace_period: Some(seconds(60)), ..rotation(&id) };
    let new = rotated(&mut root, graced).await.token.unwrap();
    let eternal = UpdateTokenRequest {
        token_id: id.clone(),
        expiration: Some(update_token_request::Expiration::NoExpiration(true)),
        update_mask: mask(&["expiration"]),
        ..Default::default()
    };
    root.update_token(eternal).await.unwrap();
    set(&mut root, Policy { longest_grace: Some(seconds(3600)), ..Policy::default() }).await;

    let done = enforced(&mut root).await;

    let [breach] = &done[..] else { panic!("{done:?}") };
    assert_eq!(
        (breach.token.as_ref().unwrap().id.as_str(), &breach.rules[..]),
        (&*id, &texts(&["longest_grace"])[..])
    );
    let grace = nanos(breach.new_expire_time.as_ref()) - nanos(new.create_time.as_ref());
    assert_eq!(grace, 3_600_000_000_000);
    assert_eq!(verified(&mut root, &old.secret, &[]).await.verdict(), Verdict::Valid);
}
