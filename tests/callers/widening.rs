//! That a running server makes no token wider than its caller may issue: random callers, acts and targets.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use prost_types::Duration;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, DisableUserRequest, EnableTokenRequest, EnableUserRequest, Grant, ListTokensRequest,
    OwnerKind, RotateTokenRequest, Token, UpdateTokenRequest, rotate_token_request, update_token_request,
};

use crate::support::client::{Client, created, mask, nanos, ordinary, rotation, texts};
use crate::support::replica::Replica;

const DAY: i64 = 86_400;
const SCOPES: [&str; 6] = ["a:b", "a:*", "c", "tokend:self", "tokend:write", "tokend:read"];
const USERS: [&str; 4] = ["ann", "team-1", "team-12", "bob"];
/// Each contains the next one.
const NETWORKS: [&str; 3] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"];

/// What a token of a test has: its owner, scopes, days to live, network and grant.
#[derive(Debug, Clone)]
struct Wanted {
    user: &'static str,
    kind: OwnerKind,
    scopes: Vec<&'static str>,
    days: Option<i64>,
    network: Option<usize>,
    grant: Option<Grant>,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let scopes = prop::collection::vec(prop::sample::select(&SCOPES[..]), 0..3);
    let (days, network) = (prop::option::of(1..4_i64), prop::option::of(0..NETWORKS.len()));
    let kind = prop::sample::select(&[OwnerKind::User, OwnerKind::Service][..]);
    (prop::sample::select(&USERS[..]), kind, scopes, days, network, prop::option::of(grant())).prop_map(
        |(user, kind, scopes, days, network, grant)| Wanted { user, kind, scopes, days, network, grant },
    )
}

fn grant() -> impl Strategy<Value = Grant> {
    let scopes = prop::collection::vec(prop::sample::select(&SCOPES[..3]), 0..3);
    let users = prop::collection::vec(prop::sample::select(&USERS[..]), 0..3);
    let (days, network) = (prop::option::of(1..4_i64), prop::option::of(0..NETWORKS.len()));
    (scopes, users, days, network, any::<bool>()).prop_map(
        |(scopes, users, days, network, may_grant_self)| Grant {
            scopes: texts(&scopes),
            users: texts(&users),
            longest_lifetime: days.map(lasting),
            networks: network.map(|network| NETWORKS[network].to_owned()).into_iter().collect(),
            may_grant_self,
            ..Grant::default()
        },
    )
}

fn lasting(days: i64) -> Duration {
    Duration { seconds: days * DAY, nanos: 0 }
}

impl Wanted {
    fn networks(&self) -> Vec<String> {
        self.network.map(|network| NETWORKS[network].to_owned()).into_iter().collect()
    }

    fn creation(&self, organization_id: &str) -> CreateTokenRequest {
        let expiration =
            self.days.map_or(Expiration::NoExpiration(true), |days| Expiration::Ttl(lasting(days)));
        CreateTokenRequest {
            organization_id: organization_id.to_owned(),
            user_id: self.user.to_owned(),
            owner_kind: self.kind.into(),
            scopes: texts(&self.scopes),
            expiration: Some(expiration),
            allowed_cidrs: self.networks(),
            grant: self.grant.clone(),
            ..ordinary()
        }
    }

    fn update(&self, id: &str) -> UpdateTokenRequest {
        use update_token_request::Expiration as End;
        UpdateTokenRequest {
            token_id: id.to_owned(),
            scopes: texts(&self.scopes),
            expiration: Some(self.days.map_or(End::NoExpiration(true), |days| End::Ttl(lasting(days)))),
            allowed_cidrs: self.networks(),
            grant: self.grant.clone(),
            update_mask: mask(&["scopes", "expiration", "allowed_cidrs", "grant"]),
            ..Default::default()
        }
    }

    fn rotation(&self, id: &str) -> RotateTokenRequest {
        use rotate_token_request::Expiration as End;
        let expiration = self.days.map(|days| End::Ttl(lasting(days)));
        RotateTokenRequest { expiration, ..rotation(id) }
    }
}

/// Returns whether the caller may act for the owner of a token.
fn acts_for_owner(caller: &Token, token: &Token) -> bool {
    let writes = caller.scopes.iter().any(|scope| scope == "tokend:write");
    let users = caller.grant.as_ref().map(|grant| &grant.users).filter(|users| writes && !users.is_empty());
    let user = users.map_or(token.user_id == caller.user_id, |users| users.contains(&token.user_id));
    user && token.owner_kind == caller.owner_kind && token.organization_id == caller.organization_id
}

/// Returns in what a token is wider than what the caller may issue, which is bounded by itself and its grant.
fn wider(caller: &Token, token: &Token) -> Option<&'static str> {
    let empty = Grant::default();
    let writes = caller.scopes.iter().any(|scope| scope == "tokend:write");
    let grant = caller.grant.as_ref().unwrap_or(&empty);
    if !acts_for_owner(caller, token) {
        return Some("owner");
    }
    let from = if grant.scopes.is_empty() { &caller.scopes } else { &grant.scopes };
    let covered = |scope: &String| match &**scope {
        "tokend:self" => writes && grant.may_grant_self,
        "tokend:write" => writes && token.grant.is_some(),
        scope if scope.starts_with("tokend:") => false,
        scope => from.iter().any(|own| own == scope || own == "a:*" && scope.starts_with("a:")),
    };
    if !token.scopes.iter().all(covered) {
        return Some("scopes");
    }
    if let Some(longest) = grant.longest_lifetime {
        let limit = nanos(token.create_time.as_ref()) + i128::from(longest.seconds) * 1_000_000_000;
        if token.expire_time.is_none() || nanos(token.expire_time.as_ref()) > limit {
            return Some("lifetime");
        }
    }
    let place = |networks: &[String]| {
        networks.first().map_or(0, |network| NETWORKS.iter().position(|known| known == network).unwrap() + 1)
    };
    (place(&grant.networks) > place(&token.allowed_cidrs)).then_some("networks")
}

/// Returns the tokens of an owner in an organization.
async fn tokens_of(root: &mut Client, organization_id: &str, owner: &Wanted) -> Vec<Token> {
    let request = ListTokensRequest {
        organization_id: organization_id.to_owned(),
        user_id: owner.user.to_owned(),
        owner_kind: owner.kind.into(),
        page_size: 1000,
        ..Default::default()
    };
    let tokens = root.list_tokens(request).await.unwrap().into_inner().tokens;
    tokens.into_iter().filter(|token| token.revoke_time.is_none()).collect()
}

#[tokio::test]
async fn no_act_makes_a_token_wider_than_its_caller_may_issue() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut runner = TestRunner::deterministic();
    let mut next = || wanted().new_tree(&mut runner).unwrap().current();
    let (mut accepted, mut refused, mut disabled, mut enabled) = (0, 0, 0, 0);

    for number in 0..60 {
        let kind = if number % 2 == 0 { "tokend:self" } else { "tokend:write" };
        // The caller itself must be usable from here, for ever.
        let mut power = Wanted { days: None, network: None, ..next() };
        power.scopes.retain(|scope| !scope.starts_with("tokend:"));
        power.scopes.push(kind);
        let grant = power.grant.get_or_insert_default();
        if kind == "tokend:self" {
            grant.users.clear();
            grant.may_grant_self = false;
        }
        let near = USERS.into_iter().rfind(|user| grant.users.iter().any(|named| named == user));
        let near = near.unwrap_or(power.user);
        // Tokens of other callers would make each user too mighty to be disabled.
        let organization = format!("acme-{number}");
        let made = created(&mut root, power.creation(&organization)).await;
        let (caller, mut client) = (made.token.unwrap(), replica.client(&made.secret));
        for round in 0..6 {
            let (mut before, mut after) = (next(), next());
            if round % 2 == 0 {
                // Nearer to what is allowed.
                (before.user, after.user) = (near, near);
                (before.kind, after.kind) = (power.kind, power.kind);
                (before.grant, after.grant) = (None, None);
            }
            let Ok(target) = root.create_token(before.creation(&organization)).await else { continue };
            let id = target.into_inner().token.unwrap().id;
            let outcomes = [
                client.create_token(after.creation("")).await.map(|made| made.into_inner().token),
                client.update_token(after.update(&id)).await.map(|made| made.into_inner().token),
                client.rotate_token(after.rotation(&id)).await.map(|made| made.into_inner().token),
                client
                    .enable_token(EnableTokenRequest { token_id: id })
                    .await
                    .map(|made| made.into_inner().token.filter(|_| false)),
            ];
            for outcome in outcomes {
                match outcome {
                    Ok(Some(token)) => {
                        accepted += 1;
                        assert_eq!(wider(&caller, &token), None, "{caller:?} gave {token:?}");
                    }
                    Ok(None) => {}
                    Err(_) => refused += 1,
                }
            }
            let (user_id, owner_kind) = (before.user.to_owned(), before.kind.into());
            let disabling = DisableUserRequest { user_id: user_id.clone(), owner_kind, ..Default::default() };
            if client.disable_user(disabling.clone()).await.is_ok() {
                disabled += 1;
                for token in tokens_of(&mut root, &organization, &before).await {
                    let privileged = |scope: &String| scope.starts_with("tokend:") && scope != "tokend:self";
                    assert!(acts_for_owner(&caller, &token), "{caller:?} disabled {token:?}");
                    assert!(!token.scopes.iter().any(privileged), "{caller:?} disabled {token:?}");
                }
            }
            let disabling = DisableUserRequest { organization_id: organization.clone(), ..disabling };
            if before.user == power.user && before.kind == power.kind {
                // The caller itself would be disabled.
                continue;
            }
            root.disable_user(disabling).await.unwrap();
            let enabling = EnableUserRequest { user_id, owner_kind, ..Default::default() };
            if client.enable_user(enabling.clone()).await.is_ok() {
                enabled += 1;
                for token in tokens_of(&mut root, &organization, &before).await {
                    assert_eq!(wider(&caller, &token), None, "{caller:?} enabled {token:?}");
                }
            } else {
                let enabling = EnableUserRequest { organization_id: organization.clone(), ..enabling };
                root.enable_user(enabling).await.unwrap();
            }
        }
    }
    println!("{accepted} acts were allowed, {refused} refused; {disabled} users disabled, {enabled} enabled");
    assert!(accepted > 30 && refused > 100, "{accepted} {refused}");
    assert!(disabled > 5 && enabled > 1, "{disabled} {enabled}");
}
