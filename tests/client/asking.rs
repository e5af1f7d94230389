//! Helpers to create and ask verifiers.

use std::net::SocketAddr;

use tokend_client::{
    Client, Connection, LocalConfig, Scope, Scopes, Verdict, Verification, Verifier, VerifyRequest,
};

use crate::setup::{Made, made};
use crate::support::client::created_with;
use crate::support::eventually;
use crate::support::replica::Replica;

/// Returns a client of the server at this address.
pub(crate) fn client_at(address: SocketAddr, secret: &str) -> Client {
    Connection::to(format!("http://{address}")).secret(secret.into()).open().unwrap()
}

/// Returns a client with all rights.
pub(crate) fn root(replica: &Replica) -> Client {
    client_at(replica.address, &replica.installation.root_secret)
}

/// Returns these scopes.
pub(crate) fn scopes(texts: &[&str]) -> Scopes {
    Scopes::new(texts.iter().map(|text| Scope::parse(text).unwrap()).collect()).unwrap()
}

/// Returns a value with a change applied.
pub(crate) fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

/// Asks a verifier about a secret.
pub(crate) async fn asked(verifier: &Verifier, secret: &str) -> Result<Verification, tokend_client::Error> {
    verifier.verify(&VerifyRequest::new(secret)).await
}

/// Asks for a verdict, which must succeed.
pub(crate) async fn verdict(verifier: &Verifier, secret: &str) -> Verdict {
    asked(verifier, secret).await.unwrap().verdict
}

/// Returns a local verdict, without asking tokend.
pub(crate) fn judged_here(verifier: &Verifier, secret: &str) -> Option<Verdict> {
    let question = VerifyRequest::new(secret);
    verifier.try_verify(&question).map(|answer| answer.verdict)
}

/// Waits until the verifier has cached a token, and it is VALID.
pub(crate) async fn is_held(verifier: &Verifier, token: &Made) {
    eventually("the token is held", async || {
        assert_eq!(verdict(verifier, &token.secret).await, Verdict::Valid);
        (judged_here(verifier, &token.secret)? == Verdict::Valid).then_some(())
    })
    .await;
}

/// Creates a local verifier of a root caller, and a token that it has cached.
pub(crate) async fn holding(replica: &Replica, config: LocalConfig) -> (Verifier, Made) {
    let verifier = Verifier::local(root(replica), config).unwrap();
    let token = made(&mut replica.root()).await;
    is_held(&verifier, &token).await;
    (verifier, token)
}

/// Creates a token with these scopes, and returns a client that uses it.
pub(crate) async fn holder(replica: &Replica, organization: &str, scopes: &[&str]) -> Client {
    let made = created_with(&mut replica.root(), organization, scopes).await;
    client_at(replica.address, &made.secret)
}
