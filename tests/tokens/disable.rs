//! Disabling and enabling a token: effective at once, audited, and within the caller's rights.

use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CreateTokenRequest, DisableTokenRequest, DisableTokenResponse, EnableTokenRequest,
    ListTokenEventsRequest, ListTokensRequest, Token, TokenEvent, TokenEventKind, TokenState, Verdict,
};
use tonic::Code;

use crate::support::client::{
    Client, created, created_with, nanos, ordinary, revoked, rotated, rotation, second, texts, unknown_id,
    verified,
};
use crate::support::replica::Replica;
use crate::support::status::refused;

fn disabling(id: &str) -> DisableTokenRequest {
    DisableTokenRequest { token_id: id.to_owned(), ..Default::default() }
}

fn enabling(id: &str) -> EnableTokenRequest {
    EnableTokenRequest { token_id: id.to_owned() }
}

async fn disabled(client: &mut Client, id: &str) -> DisableTokenResponse {
    client.disable_token(disabling(id)).await.unwrap().into_inner()
}

async fn enabled(client: &mut Client, id: &str) -> Token {
    client.enable_token(enabling(id)).await.unwrap().into_inner().token.unwrap()
}

#[tokio::test]
async fn a_disabled_token_is_refused_at_once_and_an_enabled_one_accepted() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let original = made.token.unwrap();
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Valid);

    let answer = disabled(&mut root, &original.id).await;

    // The last use may be recorded by now; Verify's response never has it.
    let token = Token { last_use_time: None, ..answer.token.unwrap() };
    assert_eq!(token.state(), TokenState::Disabled);
    assert!(nanos(answer.effective_time.as_ref()) >= nanos(token.disable_time.as_ref()));
    let judged = verified(&mut root, &made.secret, &["a"]).await;
    assert_eq!((judged.verdict(), judged.token.unwrap()), (Verdict::Disabled, token));
    let again = Token { last_use_time: None, ..enabled(&mut root, &original.id).await };
    assert_eq!(again, original);
    let judged = verified(&mut root, &made.secret, &[]).await;
    assert_eq!((judged.verdict(), judged.token.unwrap()), (Verdict::Valid, original));
}

#[tokio::test]
async fn repeating_changes_nothing_and_each_change_is_logged_once() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;

    enabled(&mut root, &id).await;
    let first = disabled(&mut root, &id).await.token;
    assert_eq!(disabled(&mut root, &id).await.token, first);
    enabled(&mut root, &id).await;
    enabled(&mut root, &id).await;

    let request = ListTokenEventsRequest { token_id: id, ..Default::default() };
    let events = root.list_token_events(request).await.unwrap().into_inner().events;
    let kinds: Vec<_> = events.iter().map(TokenEvent::kind).collect();
    assert_eq!(kinds, [TokenEventKind::Enabled, TokenEventKind::Disabled, TokenEventKind::Created]);
    let [enabling, disabling, _] = &events[..] else { unreachable!() };
    assert_eq!(disabling.changes[0].field, "disable_time");
    assert_eq!(disabling.changes[0].new_value, enabling.changes[0].old_value);
}

#[tokio::test]
async fn final_states_take_precedence() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let id = made.token.unwrap().id;
    disabled(&mut root, &id).await;
    let expired = created(&mut root, ordinary()).await;
    disabled(&mut root, &expired.token.unwrap().id).await;
    let expire =
        "UPDATE tokens SET create_time = now() - interval '2 days', expire_time = now() - interval '1 day'
        WHERE id = (SELECT id FROM tokens ORDER BY create_time DESC LIMIT 1)";
    replica.installation.database.execute(expire).await;

    let token = revoked(&mut root, &id, "").await.token.unwrap();

    assert_eq!(token.state(), TokenState::Revoked);
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Revoked);
    for outcome in [
        root.disable_token(disabling(&id)).await.map(|answer| answer.map(drop)),
        root.enable_token(enabling(&id)).await.map(|answer| answer.map(drop)),
    ] {
        refused(outcome, Code::FailedPrecondition, "TOKEN_REVOKED");
    }
    let mut question = crate::support::client::question(&expired.secret, &[]);
    question.set_consistency(tokend::api::proto::Consistency::Full);
    assert_eq!(root.verify(question).await.unwrap().into_inner().verdict(), Verdict::Expired);
}

#[tokio::test]
async fn a_disabled_token_is_not_rotated_into_a_usable_one() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    disabled(&mut root, &id).await;

    refused(root.rotate_token(rotation(&id)).await, Code::FailedPrecondition, "TOKEN_DISABLED");

    enabled(&mut root, &id).await;
    rotated(&mut root, rotation(&id)).await;
}

#[tokio::test]
async fn disabled_tokens_are_listed_as_their_own_state() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;
    let id = created(&mut root, ordinary()).await.token.unwrap().id;
    disabled(&mut root, &id).await;

    for order_by in ["create_time desc", "expire_time"] {
        for (state, number) in [(TokenState::Disabled, 1), (TokenState::Active, 1), (TokenState::Expired, 0)]
        {
            let request = ListTokensRequest {
                user_id: "ada".to_owned(),
                states: vec![state.into()],
                order_by: order_by.to_owned(),
                ..Default::default()
            };
            let tokens = root.list_tokens(request).await.unwrap().into_inner().tokens;
            assert!(tokens.iter().all(|token| token.state() == state));
            assert_eq!(tokens.len(), number, "{state:?} by {order_by}");
        }
    }
}

#[tokio::test]
async fn nobody_disables_or_enables_a_token_that_it_may_not_manage() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let reader = created_with(&mut root, "", &["tokend:read"]).await.token.unwrap().id;
    let request = CreateTokenRequest {
        scopes: texts(&["tokend:write", "tokend:read"]),
        expiration: Some(Expiration::ExpireTime(second(32_503_680_000))),
        ..ordinary()
    };
    let mut mortal = replica.client(&created(&mut root, request).await.secret);
    let mut writer = replica.caller("", &["tokend:write"]).await;

    let outcome = writer.disable_token(disabling(&reader)).await;
    refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    disabled(&mut mortal, &reader).await;
    let outcome = writer.enable_token(enabling(&reader)).await;
    refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    let outcome = mortal.enable_token(enabling(&reader)).await;
    refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    assert_eq!(enabled(&mut root, &reader).await.state(), TokenState::Active);
}

#[tokio::test]
async fn an_unknown_id_can_be_neither_disabled_nor_enabled() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let id = unknown_id().to_string();

    refused(root.disable_token(disabling(&id)).await, Code::NotFound, "TOKEN_NOT_FOUND");
    refused(root.enable_token(enabling(&id)).await, Code::NotFound, "TOKEN_NOT_FOUND");
}
