//! The typed calls, and how they handle failures.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokend_client::{
    ChangeKind, Client, Connection, Consistency, EndOptions, Error, ErrorKind, ErrorReason, EventListing,
    Expiration, Listing, Network, Networks, NewToken, RevocationTarget, Rotation, TokenEventKind, TokenId,
    TokenState, TokenUpdate, UsageQuery, UsageStep, Verdict, VerifyRequest,
};

use super::asking::{client_at, root, scopes, with};
use crate::support::client::{forged, unknown_id};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Replica;
use crate::support::{eventually, in_time};

#[tokio::test]
async fn the_life_of_a_token_with_typed_calls() {
    let replica = Replica::shared().await;
    let client = root(replica);
    let networks = Networks::new(vec![Network::parse("192.0.2.0/24").unwrap()]).unwrap();
    let new = with(NewToken::new("ada", "laptop", Expiration::After(Duration::from_hours(1))), |it| {
        it.organization_id = Some("acme".to_owned());
        it.scopes = scopes(&["repo:*"]);
        it.labels = BTreeMap::from([("team".to_owned(), "core".to_owned())]);
        it.allowed_cidrs = networks.clone();
    });

    let made = client.create_token(new).await.unwrap();
    let id = made.token.id;
    assert_eq!((made.token.user_id.as_str(), &made.token.allowed_cidrs), ("ada", &networks));
    assert!(!format!("{made:?}").contains(made.secret.expose_secret()));
    let ends = made.token.expire_time.unwrap() - made.token.create_time;
    assert_eq!(ends, time::Duration::hours(1));
    let read = client.get_token(id).await.unwrap();
    assert_eq!((&read.token, read.state), (&made.token, TokenState::Active));

    let required = scopes(&["repo:read", "user:read"]);
    let question = VerifyRequest::new(made.secret.expose_secret())
        .required_scopes(&required)
        .client_ip(Some("192.0.2.7".parse().unwrap()));
    let answer = client.verify(&question, Consistency::Bounded).await.unwrap();
    assert_eq!(answer.verdict, Verdict::MissingScope);
    assert_eq!(answer.missing_scopes, scopes(&["user:read"]).iter().cloned().collect::<Vec<_>>());
    let wider = scopes(&["repo:*", "user:read"]);
    let update = with(TokenUpdate::default(), |it| it.scopes = Some(wider.clone()));
    assert_eq!(client.update_token(id, update).await.unwrap().scopes, wider);
    let answer = client.verify(&question, Consistency::Full).await.unwrap();
    assert_eq!(answer.verdict, Verdict::Valid);
    assert_eq!(answer.token.unwrap().id, id);
    assert!(!format!("{question:?}").contains(made.secret.expose_secret()));

    assert_eq!(client.disable_token(id, "lost").await.unwrap().changed.state, TokenState::Disabled);
    assert_eq!(client.enable_token(id).await.unwrap().changed.state, TokenState::Active);
    let rotated = client.rotate_token(id, Rotation::default()).await.unwrap();
    assert_eq!((rotated.token.rotated_from, rotated.token.family()), (Some(id), id));
    let again = client.rotate_token(id, Rotation::default()).await.unwrap_err();
    assert_eq!(again.reason(), Some(ErrorReason::TokenRotated));
    assert_eq!(again.token_id(), Some(rotated.token.id));
    client.revoke_only_this_token(RevocationTarget::Id(id), "superseded").await.unwrap();
    assert_eq!(client.get_token(rotated.token.id).await.unwrap().state, TokenState::Active);
    let revoked = client.revoke_token(RevocationTarget::Secret(rotated.secret), "lost").await.unwrap();
    assert_eq!(revoked.changed.id, rotated.token.id);
    assert!(revoked.effective_time >= revoked.changed.revoke_time.unwrap());
    assert!(revoked.changed.token.is_some());
}

/// The calls that can end a token.
#[derive(Debug, Clone, Copy)]
enum End {
    Revoke,
    RevokeOnlyThis,
    RevokeUser,
    Disable,
    Update,
    Rotate,
}

impl End {
    async fn of(self, client: &Client, id: TokenId, options: EndOptions) -> Result<(), Error> {
        let force = options.force;
        match self {
            Self::Revoke => client.revoke_token(RevocationTarget::Id(id), options).await.map(drop),
            Self::RevokeOnlyThis => {
                client.revoke_only_this_token(RevocationTarget::Id(id), options).await.map(drop)
            }
            Self::RevokeUser => client.revoke_user_tokens(None, "root", options).await.map(drop),
            Self::Disable => client.disable_token(id, options).await.map(drop),
            Self::Update => {
                let update = with(TokenUpdate::default(), |it| {
                    (it.scopes, it.force) = (Some(scopes(&["a:b"])), force);
                });
                client.update_token(id, update).await.map(drop)
            }
            Self::Rotate => {
                let rotation = with(Rotation::default(), |it| {
                    it.expiration = Some(Expiration::After(Duration::from_mins(30)));
                    it.force = force;
                });
                client.rotate_token(id, rotation).await.map(drop)
            }
        }
    }
}

#[tokio::test]
async fn the_last_root_token_ends_only_by_force_and_the_log_has_the_reason() {
    for end in [End::Revoke, End::RevokeOnlyThis, End::RevokeUser, End::Disable, End::Update, End::Rotate] {
        let replica = Replica::start().await;
        // One that ends soon, which is not one that is left.
        let new = NewToken::new("ada", "mortal", Expiration::After(Duration::from_hours(1)));
        let new = with(new, |it| it.scopes = scopes(&["tokend:root"]));
        let mortal = root(&replica).create_token(new).await.unwrap().secret;
        let client = client_at(replica.address, mortal.expose_secret());
        let listing = with(Listing::default(), |it| it.user_id = Some("root".to_owned()));
        let id = client.list_tokens(&listing, None).await.unwrap().items[0].id;

        let refused = end.of(&client, id, "lost".into()).await.unwrap_err();
        assert_eq!(refused.reason(), Some(ErrorReason::LastRootToken), "{end:?}");
        end.of(&client, id, EndOptions::from("lost").force()).await.unwrap();

        let events = with(EventListing::default(), |it| it.token_id = Some(id));
        let event = client.list_token_events(&events, None).await.unwrap().items.swap_remove(0);
        let reason = event.changes.iter().find(|change| change.field.ends_with("_reason"));
        let has_reason = matches!(event.kind, Some(TokenEventKind::Revoked | TokenEventKind::Disabled));
        assert_eq!(
            reason.and_then(|reason| reason.new.as_deref()),
            has_reason.then_some("lost"),
            "{event:?}"
        );
        assert_eq!(has_reason, !matches!(end, End::Update | End::Rotate), "{end:?}");
    }
}

#[tokio::test]
async fn lists_continue_after_their_last_page_and_a_leavers_tokens_are_revoked_at_once() {
    let replica = Replica::start().await;
    let client = root(&replica);
    for number in 0..5 {
        client.create_token(NewToken::new("ada", format!("{number}"), Expiration::Never)).await.unwrap();
    }
    let listing = with(Listing::default(), |it| {
        it.user_id = Some("ada".to_owned());
        it.page_size = 2;
    });
    let (mut names, mut next) = (Vec::new(), None);
    loop {
        let page = client.list_tokens(&listing, next.as_deref()).await.unwrap();
        names.extend(page.items.iter().map(|token| token.name.as_str().to_owned()));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(names, ["4", "3", "2", "1", "0"]);
    let all = client.token_pages(&listing).collect().await.unwrap();
    assert_eq!(all.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(), names);

    assert_eq!(client.revoke_user_tokens(None, "ada", "left").await.unwrap().changed, 5);
    let active = with(listing, |it| it.states = vec![TokenState::Active]);
    assert!(client.list_tokens(&active, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn usage_is_read_by_hour_and_by_day() {
    let replica = Replica::start().await;
    let client = root(&replica);
    let made = client.create_token(NewToken::new("ada", "laptop", Expiration::Never)).await.unwrap();
    for _ in 0..3 {
        client.verify(&VerifyRequest::new(made.secret.expose_secret()), Consistency::Bounded).await.unwrap();
    }
    for step in [UsageStep::Hour, UsageStep::Day] {
        let query = with(UsageQuery::default(), |it| {
            it.step = step;
            it.top_tokens = 1;
        });
        let usage = eventually("the counts are written", async || {
            let usage = client.usage(&query).await.unwrap();
            let sum: u64 = usage.points.iter().map(|point| point.counts.of(Verdict::Valid)).sum();
            (sum == 3).then_some(usage)
        })
        .await;
        assert!(usage.points.iter().all(|point| usage.start <= point.start && point.start < usage.end));
        let top = &usage.top_tokens[0];
        assert_eq!((top.token_id, top.name.as_deref()), (made.token.id, Some("laptop")));
        assert_eq!((top.counts.total(), top.counts.of(Verdict::Revoked)), (3, 0));
    }
    let one = with(UsageQuery::default(), |it| it.token_id = Some(made.token.id));
    assert_eq!(client.usage(&one).await.unwrap().top_tokens, []);
}

#[tokio::test]
async fn changes_after_a_position_are_reported() {
    let replica = Replica::start().await;
    let client = root(&replica);
    let mut changes = client.watch_tokens(None, None).await.unwrap();
    let begin = in_time("the first message", changes.next()).await.unwrap().unwrap().position.unwrap();

    let made = client.create_token(NewToken::new("ada", "laptop", Expiration::Never)).await.unwrap().token;

    let mut changes = client.watch_tokens(None, Some(&begin)).await.unwrap();
    let reading = in_time("the change", async {
        loop {
            let batch = changes.next().await.unwrap().unwrap();
            if let Some(change) = batch.changes.into_iter().find(|change| change.token_id == made.id) {
                return change;
            }
        }
    });
    let change = reading.await;
    assert_eq!((change.kind, change.token.unwrap().id), (ChangeKind::Created, made.id));
    let refused = client.watch_tokens(None, Some("nonsense")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_refusal_names_what_it_is_about() {
    let replica = Replica::shared().await;
    let client = root(replica);

    let nobody = client.create_token(NewToken::new("", "", Expiration::Never)).await.unwrap_err();
    assert_eq!((nobody.kind(), nobody.reason()), (ErrorKind::Invalid, Some(ErrorReason::InvalidField)));
    let fields: Vec<_> = nobody.violations().iter().map(|violation| &*violation.field).collect();
    assert_eq!(fields, ["user_id", "name"]);
    let unknown = client.get_token(unknown_id()).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.reason()), (ErrorKind::NotFound, Some(ErrorReason::TokenNotFound)));
    let unauthenticated = client_at(replica.address, &forged(unknown_id()));
    let refused = unauthenticated.list_tokens(&Listing::default(), None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    assert_eq!(refused.reason(), Some(ErrorReason::CredentialInvalid));
}

#[tokio::test]
async fn a_call_whose_response_is_lost_is_retried_and_creates_one_token() {
    let replica = Replica::start().await;
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let client = client_at(proxy.address(), &replica.installation.root_secret);
    client.list_tokens(&Listing::default(), None).await.unwrap();

    // The server's responses are delayed, then the connection is cut: the call was made, its
    // response is lost.
    proxy.set(LinkState::Slow(Duration::from_millis(300)));
    let new = NewToken::new("grace", "laptop", Expiration::Never);
    let making = tokio::spawn({
        let client = client.clone();
        async move { client.create_token(new).await }
    });
    let listing = with(Listing::default(), |it| it.user_id = Some("grace".to_owned()));
    let direct = root(&replica);
    eventually("the token is made", async || {
        (direct.list_tokens(&listing, None).await.unwrap().items.len() == 1).then_some(())
    })
    .await;
    proxy.set(LinkState::Open);
    proxy.cut();

    let made = in_time("the second call", making).await.unwrap().unwrap();
    let listed = direct.list_tokens(&listing, None).await.unwrap().items;
    assert_eq!(listed.iter().map(|token| token.id).collect::<Vec<_>>(), [made.token.id]);
    let question = VerifyRequest::new(made.secret.expose_secret());
    assert_eq!(direct.verify(&question, Consistency::Full).await.unwrap().verdict, Verdict::Valid);
}

#[tokio::test]
async fn an_unreachable_tokend_makes_the_outcome_unknown() {
    let replica = Replica::start().await;
    let proxy = Proxy::to_port(replica.address, LinkState::Cut).await;
    let client = client_at(proxy.address(), &replica.installation.root_secret);

    let away = client.list_tokens(&Listing::default(), None).await.unwrap_err();
    assert_eq!(away.kind(), ErrorKind::Unavailable);

    proxy.set(LinkState::Open);
    assert!(client.list_tokens(&Listing::default(), None).await.is_ok());
}

#[tokio::test]
async fn a_silent_connection_is_closed_long_before_the_deadline_of_a_call() {
    let replica = Replica::start().await;
    let proxy = Proxy::to_port(replica.address, LinkState::Open).await;
    let client = Connection::to(format!("http://{}", proxy.address()))
        .secret((&*replica.installation.root_secret).into())
        .call_timeout(Duration::from_mins(5))
        .attempts(1)
        .open()
        .unwrap();
    client.list_tokens(&Listing::default(), None).await.unwrap();

    proxy.set(LinkState::Stalled);

    let silent = client.list_tokens(&Listing::default(), None).await.unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::Unavailable, "its pings had no answer: {silent}");
}
