//! Getting one token by its id.

use tokend::api::proto::{GetTokenRequest, Token, TokenState};
use tonic::Code;

use crate::support::client::{Client, created, created_with, ordinary, revoked, unknown_id, verified};
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::{fields, refused};

pub(crate) async fn got(client: &mut Client, id: &str) -> Token {
    let request = GetTokenRequest { token_id: id.to_owned() };
    client.get_token(request).await.unwrap().into_inner().token.unwrap()
}

#[tokio::test]
async fn get_shows_the_current_token() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created_with(&mut root, "acme", &["repo:read"]).await;
    let created = made.token.unwrap();

    let fresh = got(&mut root, &created.id).await;
    let revoked = revoked(&mut root, &created.id, "lost").await.token;

    assert_eq!(fresh, created);
    let after = got(&mut root, &created.id).await;
    assert_eq!(after.state(), TokenState::Revoked);
    assert_eq!(Some(after), revoked);
}

#[tokio::test]
async fn get_shows_the_last_use() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let id = made.token.unwrap().id;

    verified(&mut root, &made.secret, &[]).await;

    let used = eventually("the use is recorded", async || got(&mut root, &id).await.last_use_time).await;
    assert!(used.seconds > 0);
}

#[tokio::test]
async fn an_invalid_id_is_refused_and_an_unknown_one_not_found() {
    let replica = Replica::shared().await;
    let mut root = replica.root();

    for bad in ["", "short", &"z".repeat(22)] {
        let outcome = root.get_token(GetTokenRequest { token_id: bad.to_owned() }).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), ["token_id"], "{bad:?}");
    }
    let unknown = GetTokenRequest { token_id: unknown_id().to_string() };
    refused(root.get_token(unknown).await, Code::NotFound, "TOKEN_NOT_FOUND");
}
