//! A new first key, or an entirely new keyring: every token stays valid, and gets a new MAC.

use tokend::api::proto::Verdict;
use tokend::secret::{KeyId, TokenId};

use crate::support::client::{created, ordinary, verified};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::{Installation, keyring, new_key};

/// Returns the key of a token's MAC.
async fn key_of(database: &Database, id: &str) -> KeyId {
    let id = sqlx::types::Uuid::from_bytes(TokenId::parse(id).unwrap().to_bytes());
    let bytes: Vec<u8> = sqlx::query_scalar("SELECT mac_key_id FROM tokens WHERE id = $1")
        .bind(id)
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    KeyId::from_bytes(bytes.try_into().unwrap())
}

/// Waits until a token's MAC is from this key.
async fn taken_over(database: &Database, id: &str, key: KeyId) {
    eventually("the new MAC", async || (key_of(database, id).await == key).then_some(())).await;
}

#[tokio::test]
async fn a_new_first_key_leaves_every_token_valid_and_takes_over_its_mac() {
    let installation = Installation::new().await;
    let old = installation.serve(installation.config()).await;
    let made = created(&mut old.root(), ordinary()).await;
    let id = made.token.unwrap().id;
    let new_key = new_key();
    let ring = keyring(&[&new_key, &installation.key]);
    assert_eq!(key_of(&installation.database, &id).await, keyring(&[&installation.key]).primary());

    let mut config = installation.config();
    config.keyring = ring.clone();
    let rotated = installation.serve(config).await;
    let answer = verified(&mut rotated.root(), &made.secret, &[]).await;

    assert_eq!(answer.verdict(), Verdict::Valid);
    taken_over(&installation.database, &id, ring.primary()).await;
    assert_eq!(verified(&mut rotated.root(), &made.secret, &[]).await.verdict(), Verdict::Valid);
}

#[tokio::test]
async fn the_old_key_is_not_needed_once_every_mac_is_new() {
    let installation = Installation::new().await;
    let new_key = new_key();
    let mut config = installation.config();
    config.keyring = keyring(&[&new_key, &installation.key]);
    let rotated = installation.serve(config).await;
    let made = created(&mut rotated.root(), ordinary()).await;
    let root_id = &installation.root_secret[5..27];
    let primary = keyring(&[&new_key]).primary();
    taken_over(&installation.database, root_id, primary).await;
    // Unreadable: from here on only the MAC can prove a secret.
    let corrupt = "UPDATE tokens SET durable_hash = decode(repeat('00', 56), 'hex')";
    assert_eq!(installation.database.execute(corrupt).await, 2);

    let mut config = installation.config();
    config.keyring = keyring(&[&new_key]);
    let later = installation.serve(config).await;

    assert_eq!(verified(&mut later.root(), &made.secret, &[]).await.verdict(), Verdict::Valid);
}

#[tokio::test]
async fn a_lost_keyring_leaves_every_token_valid_and_macs_are_recreated() {
    let installation = Installation::new().await;
    let before = installation.serve(installation.config()).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(created(&mut before.root(), ordinary()).await);
    }
    before.shut_down().outcome().await.unwrap();

    let mut config = installation.config();
    config.keyring = keyring(&[&new_key()]);
    let primary = config.keyring.primary();
    let after = installation.serve(config).await;

    for made in made {
        let answer = verified(&mut after.root(), &made.secret, &[]).await;
        assert_eq!(answer.verdict(), Verdict::Valid);
        assert_eq!(answer.token, made.token);
        taken_over(&installation.database, &answer.token.unwrap().id, primary).await;
    }
    taken_over(&installation.database, &installation.root_secret[5..27], primary).await;
}

#[tokio::test]
async fn a_new_mac_is_not_in_the_audit_log() {
    let installation = Installation::new().await;
    let events = "SELECT count(*) FROM token_events";
    let before = installation.database.count(events).await;

    let mut config = installation.config();
    config.keyring = keyring(&[&new_key()]);
    let primary = config.keyring.primary();
    let replica = installation.serve(config).await;
    verified(&mut replica.root(), "", &[]).await;
    taken_over(&installation.database, &installation.root_secret[5..27], primary).await;

    assert_eq!(installation.database.count(events).await, before);
}
