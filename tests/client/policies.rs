//! Typed policies: what is set is what is read, the dry run shows what enforcement does, and a
//! refusal by a policy names the rule.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use tokend_client::{
    Client, ErrorKind, ErrorReason, Expiration, Listing, NewToken, Policy, PolicyBreach, PolicyRule,
    Principal, Remedy, TokenState, TokenStatus,
};

use super::asking::{client_at, holder, root, scopes, with};
use crate::support::assorted_tokens::tokens_of_all_sorts;
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Replica;

const DAY: Duration = Duration::from_hours(24);

fn strict() -> Policy {
    with(Policy::default(), |it| {
        it.longest_lifetime = Some(40 * DAY);
        it.expiration_required = true;
        it.longest_grace = Some(Duration::from_hours(1));
        it.most_active_tokens_per_user = NonZeroU32::new(5);
        it.allowed_scopes = scopes(&["repo:*"]);
    })
}

/// Reads all tokens except the root token, whose last use keeps changing.
async fn all(client: &Client) -> Vec<TokenStatus> {
    let mut tokens =
        client.token_pages(&with(Listing::default(), |it| it.page_size = 300)).collect().await.unwrap();
    tokens.retain(|token| token.user_id.as_str() != "root");
    tokens
}

/// Enforces the default organization's policy to the end; returns what was done, and the number of pages.
async fn enforced(client: &Client) -> (Vec<PolicyBreach>, u32) {
    let (mut breaches, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = client.enforce_policy(None, after.as_deref()).await.unwrap().changed;
        breaches.extend(page.items);
        pages += 1;
        after = page.next;
        if after.is_none() {
            return (breaches, pages);
        }
    }
}

#[tokio::test]
async fn a_policy_is_read_as_it_was_set_with_who_set_it() {
    let replica = Replica::start().await;
    let client = root(&replica);
    let untouched = client.get_policy(Some("acme")).await.unwrap();
    assert_eq!((untouched.organization_id.as_str(), &untouched.policy), ("acme", &Policy::default()));
    assert_eq!((untouched.updated_by, untouched.update_time), (None, None));
    let policy = with(strict(), |it| it.reuse_detection = true);

    let set = client.update_policy(Some("acme"), &policy).await.unwrap();

    assert_eq!((set.organization_id.as_str(), &set.policy), ("acme", &policy));
    assert_eq!(set.updated_by, Principal::parse(&replica.installation.root_secret[5..27]));
    assert!(set.update_time.is_some());
    assert_eq!(client.get_policy(Some("acme")).await.unwrap(), set);
    assert_eq!(client.get_policy(None).await.unwrap().policy, Policy::default());
    let wrong = with(policy, |it| it.longest_grace = Some(31 * DAY));
    let refused = client.update_policy(None, &wrong).await.unwrap_err();
    assert_eq!((refused.kind(), refused.reason()), (ErrorKind::Invalid, Some(ErrorReason::InvalidField)));
    assert_eq!(refused.violations()[0].field, "policy.longest_grace");
}

#[tokio::test]
async fn a_dry_run_of_several_pages_lists_what_enforcement_then_does() {
    let replica = Replica::start().await;
    let client = root(&replica);
    tokens_of_all_sorts(&replica.installation.database).await;
    let before = all(&client).await;

    let tried = client.check_policy_pages(None, Some(&strict())).collect().await.unwrap();
    assert_eq!(all(&client).await, before, "a dry run changes nothing");
    client.update_policy(None, &strict()).await.unwrap();
    assert_eq!(
        client.check_policy_pages(None, None).collect().await.unwrap(),
        tried,
        "the policy that is set"
    );
    let (done, pages) = enforced(&client).await;

    assert_eq!(done, tried);
    assert!(pages > 1);
    let broken: HashSet<_> = done.iter().flat_map(|breach| &breach.rules).map(|rule| rule.word()).collect();
    assert_eq!(
        broken.len(),
        PolicyRule::ALL.len() - 2,
        "none was rotated, and no plan is checked: {broken:?}"
    );
    for breach in &done {
        let now = client.get_token(breach.token.id).await.unwrap();
        match &breach.remedy {
            Remedy::Revoke => assert_eq!(now.state, TokenState::Revoked),
            Remedy::Narrow { expire_time, removed_scopes, .. } => {
                assert_eq!(now.expire_time, expire_time.or(breach.token.expire_time));
                assert!(removed_scopes.iter().all(|lost| now.scopes.iter().all(|scope| scope != lost)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.check_policy_pages(None, None).collect().await.unwrap(), []);
}

#[tokio::test]
async fn a_refusal_by_policy_names_the_rule() {
    let replica = Replica::start().await;
    let client = root(&replica);
    let policy = with(Policy::default(), |it| {
        it.longest_lifetime = Some(DAY);
        it.most_active_tokens_per_user = NonZeroU32::new(2);
        it.allowed_scopes = scopes(&["repo:*"]);
    });
    client.update_policy(None, &policy).await.unwrap();
    let new = |days| NewToken::new("ada", "laptop", Expiration::After(days * DAY));
    let made = client.create_token(new(1)).await.unwrap().token;
    client.create_token(new(1)).await.unwrap();

    let never = NewToken::new("bob", "n", Expiration::Never);
    let wider = with(new(1), |it| {
        it.scopes = scopes(&["user:read"]);
        it.user_id = "bob".to_owned();
    });
    for (new, rule) in [
        (new(1), PolicyRule::MostActiveTokens),
        (with(new(2), |it| it.user_id = "bob".to_owned()), PolicyRule::LongestLifetime),
        (never, PolicyRule::LongestLifetime),
        (wider, PolicyRule::AllowedScopes),
    ] {
        let refused = client.create_token(new).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
        assert_eq!((refused.reason(), refused.rule()), (Some(ErrorReason::PolicyForbids), Some(rule)));
    }

    client.disable_token(made.id, "").await.unwrap();
    let refused = client.create_token(new(1)).await.unwrap_err();
    assert_eq!(refused.rule(), Some(PolicyRule::MostActiveTokens), "what is disabled counts");
    client.revoke_user_tokens(None, "ada", "left").await.unwrap();
    client.create_token(new(1)).await.unwrap();
}

#[tokio::test]
async fn policies_need_the_scope_and_the_own_organization() {
    let replica = Replica::start().await;
    let verifier = holder(&replica, "acme", &["tokend:verify"]).await;
    let reader = holder(&replica, "acme", &["tokend:read"]).await;
    let writer = holder(&replica, "acme", &["tokend:read", "tokend:write"]).await;
    let scopeless = Some(ErrorReason::ScopeMissing);

    assert_eq!(verifier.get_policy(None).await.unwrap_err().reason(), scopeless);
    assert_eq!(verifier.check_policy(None, None, None).await.unwrap_err().reason(), scopeless);
    let refused = writer.update_policy(Some("acme"), &strict()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.reason()), (ErrorKind::PermissionDenied, scopeless));
    assert_eq!(writer.enforce_policy(Some("acme"), None).await.unwrap_err().reason(), scopeless);
    assert_eq!(reader.get_policy(None).await.unwrap().organization_id.as_str(), "acme");
    assert_eq!(reader.check_policy(None, Some(&strict()), None).await.unwrap().next, None);
    let foreign = reader.get_policy(Some("other")).await.unwrap_err();
    assert_eq!(foreign.reason(), Some(ErrorReason::OrganizationForbidden));
    assert_eq!(reader.check_policy(None, None, Some("?")).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_enforcement_whose_response_is_lost_says_so_and_can_be_restarted() {
    let replica = Replica::start().await;
    let direct = root(&replica);
    for _ in 0..3 {
        direct.create_token(NewToken::new("ada", "laptop", Expiration::Never)).await.unwrap();
    }
    let policy = with(Policy::default(), |it| it.most_active_tokens_per_user = NonZeroU32::new(1));
    direct.update_policy(None, &policy).await.unwrap();
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let client = client_at(proxy.address(), &replica.installation.root_secret);
    client.get_policy(None).await.unwrap();

    // The server's responses are delayed, then the connection is cut: it was done, but the list of
    // what was done is lost.
    proxy.set(LinkState::Slow(Duration::from_millis(300)));
    let enforcing = tokio::spawn({
        let client = client.clone();
        async move { client.enforce_policy(None, None).await }
    });
    let active = with(Listing::default(), |it| {
        it.states = vec![TokenState::Active];
        it.user_id = Some("ada".to_owned());
    });
    eventually("it is enforced", async || {
        (direct.list_tokens(&active, None).await.unwrap().items.len() == 1).then_some(())
    })
    .await;
    proxy.set(LinkState::Open);
    proxy.cut();

    assert_eq!(enforcing.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(enforced(&client).await, (Vec::new(), 1), "nothing is done twice");
}
