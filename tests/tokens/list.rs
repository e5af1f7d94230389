//! Listing: which tokens, in which order, and which requests are refused.

use std::time::Duration;

use prost_types::Timestamp;
use tokend::api::proto::TokenState::{self, Active, Expired, Revoked};
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, ListTokensRequest, RevokeUserTokensRequest, Verdict};
use tonic::Code;

use crate::support::client::{Client, created, ordinary, revoked, second, verified};
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};
use crate::support::status::{fields, refused};

/// Creates an ordinary token with this name; other fields are from `request`.
async fn named(client: &mut Client, name: &str, request: CreateTokenRequest) -> String {
    created(client, CreateTokenRequest { name: name.to_owned(), ..request }).await.token.unwrap().id
}

/// Lists one page and returns the names on it, without the callers' own tokens.
async fn names(client: &mut Client, request: ListTokensRequest) -> Vec<String> {
    let page = client.list_tokens(request).await.unwrap().into_inner();
    let ordinary =
        page.tokens.into_iter().filter(|token| !token.scopes.iter().any(|s| s.starts_with("tokend:")));
    ordinary.map(|token| token.name).collect()
}

fn owned_by(organization_id: &str, user_id: &str) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        user_id: user_id.to_owned(),
        ..ordinary()
    }
}

fn of(organization_id: &str, user_id: &str) -> ListTokensRequest {
    ListTokensRequest {
        organization_id: organization_id.to_owned(),
        user_id: user_id.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_listing_shows_the_newest_first() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for name in ["first", "second", "third"] {
        named(&mut root, name, ordinary()).await;
    }

    for order_by in ["", "create_time desc"] {
        let request = ListTokensRequest { order_by: order_by.to_owned(), ..Default::default() };
        assert_eq!(names(&mut root, request).await, ["third", "second", "first"]);
    }
}

#[tokio::test]
async fn a_listing_by_expire_time_shows_the_soonest_first_and_never_last() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let at = |seconds, nanos| CreateTokenRequest {
        expiration: Some(Expiration::ExpireTime(Timestamp { seconds, nanos })),
        ..ordinary()
    };
    named(&mut root, "never", ordinary()).await;
    named(&mut root, "never either", ordinary()).await;
    named(&mut root, "later", at(32_503_680_001, 0)).await;
    named(&mut root, "soon", at(32_503_680_000, 0)).await;
    named(&mut root, "a little later", at(32_503_680_000, 1_000)).await;
    for name in ["never as well", "and never", "not ever"] {
        named(&mut root, name, ordinary()).await;
    }

    let by_expire_time = ListTokensRequest { order_by: "expire_time".to_owned(), ..Default::default() };
    let names = names(&mut root, by_expire_time).await;

    let never = ["never", "never either", "never as well", "and never", "not ever"];
    assert_eq!(
        names,
        [&["soon", "a little later", "later"][..], &never].concat(),
        "those of one time by creation"
    );
}

#[tokio::test]
async fn filters_of_organization_and_user_apply_together() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for (organization, user) in [("acme", "ada"), ("acme", "bob"), ("other", "ada")] {
        named(&mut root, &format!("{organization}/{user}"), owned_by(organization, user)).await;
    }

    assert_eq!(names(&mut root, of("", "")).await, ["other/ada", "acme/bob", "acme/ada"]);
    assert_eq!(names(&mut root, of("acme", "")).await, ["acme/bob", "acme/ada"]);
    assert_eq!(names(&mut root, of("", "ada")).await, ["other/ada", "acme/ada"]);
    assert_eq!(names(&mut root, of("acme", "ada")).await, ["acme/ada"]);
    assert_eq!(names(&mut root, of("acme", "Ada")).await, [""; 0]);
    assert_eq!(names(&mut root, of("nobody", "")).await, [""; 0]);
    for (organization, user, expected) in [
        ("acme", "", &["acme/ada", "acme/bob"][..]),
        ("", "ada", &["acme/ada", "other/ada"]),
        ("acme", "bob", &["acme/bob"]),
    ] {
        let request = ListTokensRequest { order_by: "expire_time".to_owned(), ..of(organization, user) };
        assert_eq!(names(&mut root, request).await, expected, "by expire_time");
    }
}

#[tokio::test]
async fn owners_with_equal_index_keys_are_distinguished() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let same = "CREATE OR REPLACE FUNCTION owner_key(organization_id text, user_id text) RETURNS bigint
        LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 7";
    database.execute(same).await;
    database.execute("REINDEX TABLE tokens").await;
    let mut root = replica.root();
    for (organization, user) in [("acme", "ada"), ("acme", "bob"), ("other", "ada")] {
        named(&mut root, &format!("{organization}/{user}"), owned_by(organization, user)).await;
    }

    for (organization, user, expected) in [
        ("acme", "", &["acme/ada", "acme/bob"][..]),
        ("", "ada", &["acme/ada", "other/ada"]),
        ("acme", "ada", &["acme/ada"]),
        ("other", "bob", &[]),
    ] {
        assert_eq!(found(&mut root, of(organization, user)).await, expected);
    }
    let request = RevokeUserTokensRequest {
        organization_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        ..Default::default()
    };
    assert_eq!(root.revoke_user_tokens(request).await.unwrap().into_inner().revoked_count, 1);
}

#[tokio::test]
async fn states_are_shown_and_filtered_by_the_time_of_the_response() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    named(&mut root, "active", ordinary()).await;
    let end =
        CreateTokenRequest { expiration: Some(Expiration::ExpireTime(second(32_503_680_000))), ..ordinary() };
    named(&mut root, "future", end).await;
    named(&mut root, "expired", owned_by("", "expired")).await;
    let id = named(&mut root, "revoked", ordinary()).await;
    revoked(&mut root, &id, "").await;
    let id = named(&mut root, "both", owned_by("", "expired")).await;
    revoked(&mut root, &id, "").await;
    let expire =
        "UPDATE tokens SET create_time = '2001-01-01', expire_time = now() WHERE user_id = 'expired'";
    assert_eq!(replica.installation.database.execute(expire).await, 2);

    for (states, expected) in [
        (&[][..], &["active", "both", "expired", "future", "revoked"][..]),
        (&[Active], &["active", "future"]),
        (&[Expired], &["expired"]),
        (&[Revoked], &["both", "revoked"]),
        (&[Revoked, Expired, Revoked], &["both", "expired", "revoked"]),
        (&[Active, Expired, Revoked], &["active", "both", "expired", "future", "revoked"]),
    ] {
        for order_by in ["create_time desc", "expire_time"] {
            let request = ListTokensRequest {
                states: states.iter().map(|&state| state.into()).collect(),
                order_by: order_by.to_owned(),
                ..Default::default()
            };
            let mut names = names(&mut root, request).await;
            names.sort();
            assert_eq!(names, expected, "{states:?} by {order_by}");
        }
    }
    let all = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    let state = |name| all.iter().find(|token| token.name == name).unwrap().state();
    assert_eq!(
        ["active", "future", "expired", "revoked", "both"].map(state),
        [Active, Active, Expired, Revoked, Revoked]
    );
}

#[tokio::test]
async fn an_invalid_listing_is_refused_with_its_field() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let blank = ListTokensRequest::default;
    let no_time = Timestamp { seconds: 0, nanos: -1 };

    for (request, expected) in [
        (ListTokensRequest { page_size: -1, ..blank() }, "page_size"),
        (ListTokensRequest { page_size: i32::MIN, ..blank() }, "page_size"),
        (ListTokensRequest { order_by: "name".to_owned(), ..blank() }, "order_by"),
        (ListTokensRequest { order_by: "create_time".to_owned(), ..blank() }, "order_by"),
        (ListTokensRequest { order_by: "expire_time desc".to_owned(), ..blank() }, "order_by"),
        (ListTokensRequest { states: vec![TokenState::Active.into(), 0], ..blank() }, "states[1]"),
        (ListTokensRequest { states: vec![99], ..blank() }, "states[0]"),
        (of(&"o".repeat(201), ""), "organization_id"),
        (of("", &"u".repeat(201)), "user_id"),
        (of("", "\0"), "user_id"),
        (ListTokensRequest { created_after: Some(no_time), ..blank() }, "created_after"),
        (ListTokensRequest { created_before: Some(no_time), ..blank() }, "created_before"),
        (ListTokensRequest { expires_before: Some(no_time), ..blank() }, "expires_before"),
        (ListTokensRequest { unused_since: Some(no_time), ..blank() }, "unused_since"),
        (ListTokensRequest { name_contains: "n".repeat(101), ..blank() }, "name_contains"),
        (ListTokensRequest { name_contains: "\n".to_owned(), ..blank() }, "name_contains"),
    ] {
        let shown = format!("{request:?}");
        let status = refused(root.list_tokens(request).await, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [expected], "{shown}");
    }
}

#[tokio::test]
async fn all_invalid_fields_of_a_listing_are_named_at_once() {
    let replica = Replica::start().await;
    let request =
        ListTokensRequest { states: vec![0], order_by: "?".to_owned(), page_size: -1, ..of("\n", "\n") };

    let status = refused(replica.root().list_tokens(request).await, Code::InvalidArgument, "INVALID_FIELD");

    assert_eq!(fields(&status), ["organization_id", "user_id", "states[0]", "order_by", "page_size"]);
}

/// Lists in both orders, which must agree, and returns the names in alphabetical order.
async fn found(client: &mut Client, request: ListTokensRequest) -> Vec<String> {
    let by_expire_time = ListTokensRequest { order_by: "expire_time".to_owned(), ..request.clone() };
    let (mut found, mut by_expire_time) = (names(client, request).await, names(client, by_expire_time).await);
    found.sort();
    by_expire_time.sort();
    assert_eq!(found, by_expire_time);
    found
}

#[tokio::test]
async fn a_listing_is_bounded_by_when_tokens_were_created() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut times = Vec::new();
    for name in ["a", "b", "c"] {
        let request = CreateTokenRequest { name: name.to_owned(), ..ordinary() };
        times.push(created(&mut root, request).await.token.unwrap().create_time);
    }
    let [_, b, c] = times[..] else { unreachable!() };
    let between = |created_after, created_before| ListTokensRequest {
        created_after,
        created_before,
        ..ListTokensRequest::default()
    };
    let just_after = |time: Option<Timestamp>| time.map(|time| Timestamp { nanos: time.nanos + 1, ..time });

    assert_eq!(found(&mut root, between(b, None)).await, ["b", "c"], "that moment included");
    assert_eq!(found(&mut root, between(None, b)).await, ["a"], "that moment not included");
    assert_eq!(found(&mut root, between(b, c)).await, ["b"]);
    assert_eq!(found(&mut root, between(just_after(b), None)).await, ["c"], "a nanosecond counts");
    assert_eq!(found(&mut root, between(None, just_after(b))).await, ["a", "b"]);
    assert_eq!(found(&mut root, between(c, b)).await, [""; 0]);
}

#[tokio::test]
async fn a_listing_is_bounded_by_when_tokens_expire() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for (name, seconds) in [("soon", 32_503_680_000), ("later", 32_503_680_001)] {
        let end =
            CreateTokenRequest { expiration: Some(Expiration::ExpireTime(second(seconds))), ..ordinary() };
        named(&mut root, name, end).await;
    }
    named(&mut root, "never", ordinary()).await;
    let before = |seconds| ListTokensRequest { expires_before: Some(second(seconds)), ..Default::default() };

    assert_eq!(found(&mut root, before(32_503_680_000)).await, [""; 0], "that moment not included");
    assert_eq!(found(&mut root, before(32_503_680_001)).await, ["soon"]);
    assert_eq!(
        found(&mut root, before(253_402_300_799)).await,
        ["later", "soon"],
        "and none that never does"
    );
    let active = ListTokensRequest { states: vec![Active.into()], ..before(32_503_680_002) };
    assert_eq!(found(&mut root, active).await, ["later", "soon"]);
    let expired = ListTokensRequest { states: vec![Expired.into()], ..before(32_503_680_002) };
    assert_eq!(found(&mut root, expired).await, [""; 0]);
}

#[tokio::test]
async fn part_of_a_name_is_found_ignoring_case() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for name in ["Ada's Laptop", "laptop of Bob", "100% _sure_", "Éva", "other"] {
        named(&mut root, name, ordinary()).await;
    }
    let with = |part: &str| ListTokensRequest { name_contains: part.to_owned(), ..Default::default() };

    for (part, expected) in [
        ("LAPTOP", &["Ada's Laptop", "laptop of Bob"][..]),
        ("s lap", &["Ada's Laptop"]),
        ("%", &["100% _sure_"]),
        ("_", &["100% _sure_"]),
        ("\\", &[]),
        ("Év", &["Éva"]),
        ("év", &[]),
        ("", &["100% _sure_", "Ada's Laptop", "laptop of Bob", "other", "Éva"]),
    ] {
        assert_eq!(found(&mut root, with(part)).await, expected, "{part:?}");
    }
}

#[tokio::test]
async fn unused_tokens_are_found() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let database = &replica.installation.database;
    named(&mut root, "old and unused", ordinary()).await;
    let busy = created(&mut root, CreateTokenRequest { name: "old and used".to_owned(), ..ordinary() }).await;
    database.execute("UPDATE tokens SET create_time = '2001-01-01' WHERE user_id = 'ada'").await;
    named(&mut root, "new", ordinary()).await;
    assert_eq!(verified(&mut root, &busy.secret, &[]).await.verdict(), Verdict::Valid);
    let uses = "SELECT count(*) FROM token_uses NATURAL JOIN (SELECT id AS token_id FROM tokens WHERE user_id = 'ada') t";
    eventually("the use is recorded", async || (database.count(uses).await == 1).then_some(())).await;
    let since = |seconds| ListTokensRequest {
        user_id: "ada".to_owned(),
        unused_since: Some(second(seconds)),
        ..Default::default()
    };

    assert_eq!(found(&mut root, since(1_000_000_000)).await, ["old and unused"]);
    assert_eq!(found(&mut root, since(978_307_200)).await, [""; 0], "created at that moment, not before");
    assert_eq!(found(&mut root, since(32_503_680_000)).await, ["new", "old and unused", "old and used"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_shows_only_tokens_in_a_requested_state() {
    let installation = Installation::new().await;
    let proxy = Proxy::start(LinkState::Open).await;
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.serve(config).await;
    let mut root = replica.root();
    for tenths in 0..20 {
        let ttl = prost_types::Duration { seconds: 2 + tenths / 10, nanos: 0 };
        let ttl = prost_types::Duration { nanos: i32::try_from(tenths % 10).unwrap() * 100_000_000, ..ttl };
        created(&mut root, CreateTokenRequest { expiration: Some(Expiration::Ttl(ttl)), ..ordinary() }).await;
    }
    // Tokens expire between the statements of a page's transaction.
    proxy.set(LinkState::Slow(Duration::from_millis(100)));
    loop {
        let mut shown = async |state: TokenState| {
            let user_id = ordinary().user_id;
            let request = ListTokensRequest { states: vec![state.into()], user_id, ..Default::default() };
            let page = root.list_tokens(request).await.unwrap().into_inner();
            assert!(page.tokens.iter().all(|token| token.state() == state), "{state:?}: {:?}", page.tokens);
            page.tokens.len()
        };
        let (active, _) = (shown(Active).await, shown(Expired).await);
        if active == 0 {
            break;
        }
    }
}
