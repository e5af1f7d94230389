//! A guard whose own token is rotated while it runs: it continues with the new secret once that is provided.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokend_client::{Connection, LocalConfig, Rotation, TokenId, Verdict, Verifier};

use super::asking::{asked, is_held, root, verdict};
use crate::setup::{Made, made};
use crate::support::client::created_with;
use crate::support::eventually;
use crate::support::program::TestDir;
use crate::support::replica::Replica;

#[tokio::test]
async fn a_caller_whose_token_is_rotated_continues_with_the_secret_in_its_file() {
    let replica = Replica::start().await;
    let admin = root(&replica);
    let own = created_with(&mut replica.root(), "acme", &["tokend:verify"]).await;
    let token: Made = created_with(&mut replica.root(), "acme", &[]).await.into();
    let test_dir = TestDir::new();
    let path = test_dir.write("secret", &format!("{}\n", own.secret));
    let connection = Connection::to(format!("http://{}", replica.address)).secret_file(&path);
    let open = || connection.clone().open().unwrap();
    let verifiers = [
        Verifier::unary(open()),
        Verifier::multiplexed(open()).unwrap(),
        Verifier::local(open(), LocalConfig::default()).unwrap(),
    ];
    for verifier in &verifiers {
        assert_eq!(verdict(verifier, &token.secret).await, Verdict::Valid);
    }
    is_held(&verifiers[2], &token).await;

    // Without a grace: the old one ends at once.
    let id: TokenId = own.token.unwrap().id.parse().unwrap();
    let rotated = admin.rotate_token(id, Rotation::default()).await.unwrap();
    test_dir.write("secret", rotated.secret.expose_secret());

    for verifier in &verifiers {
        eventually("it is known by its new secret", async || {
            (asked(verifier, &token.secret).await.ok()?.verdict == Verdict::Valid).then_some(())
        })
        .await;
    }
    is_held(&verifiers[2], &token).await;
    let fresh = made(&mut replica.root()).await;
    assert_ne!(verdict(&verifiers[1], &fresh.secret).await, Verdict::Valid, "another organization's");
}

#[tokio::test]
async fn a_call_is_retried_within_its_deadline_while_tokend_restarts() {
    let first = Replica::start().await;
    let installation = first.installation.clone();
    let token = made(&mut first.root()).await;
    let proxy =
        crate::support::proxy::Proxy::to_port(first.address, crate::support::proxy::LinkState::Open).await;
    let client = Connection::to(format!("http://{}", proxy.address()))
        .secret((&*installation.root_secret).into())
        .call_timeout(Duration::from_secs(15));
    let verifier = Verifier::unary(client.repeat_spending().open().unwrap());
    assert_eq!(verdict(&verifier, &token.secret).await, Verdict::Valid);

    first.shut_down().outcome().await.unwrap();
    let asking = tokio::spawn(async move { asked(&verifier, &token.secret).await });
    // Away for as long as a program takes to restart.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = installation.serve(installation.config()).await;
    proxy.lead_to_port(second.address);

    assert_eq!(asking.await.unwrap().unwrap().verdict, Verdict::Valid);
}
