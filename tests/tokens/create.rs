//! Creating a token: the response, the stored row, and that the secret is shown only this once.

use prost::Message as _;
use prost_types::Duration;
use sqlx::Row as _;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{CreateTokenRequest, ListTokensRequest, OwnerKind, TokenState};
use tokend::secret::{DurableHash, KeyId, Mac, MacMatch, Prefix, Secret};
use tonic::Code;

use crate::support::client::{
    created, created_with, nanos, ordinary, question, revocation, second, texts, verified,
};
use crate::support::replica::{Replica, cheap, keyring};
use crate::support::status::{fields, refused};

const YEAR_3000: i64 = 32_503_680_000;
/// 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;

#[tokio::test]
async fn a_created_token_has_the_requested_fields() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let request = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        name: "Ada's laptop".to_owned(),
        expiration: Some(Expiration::ExpireTime(second(YEAR_3000))),
        scopes: texts(&["repo:read", "repo:write", "repo:read"]),
        labels: [("team".to_owned(), "tools".to_owned())].into(),
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        request_id: String::new(),
        grant: None,
        owner_kind: OwnerKind::Service.into(),
        plan: String::new(),
    };

    let token = created(&mut root, request).await.token.unwrap();

    assert_eq!(token.id.len(), 22);
    assert_eq!((&*token.organization_id, &*token.user_id, &*token.name), ("acme", "ada", "Ada's laptop"));
    assert_eq!(token.scopes, ["repo:read", "repo:write"], "a scope named twice is held once");
    assert_eq!(token.owner_kind(), OwnerKind::Service);
    assert_eq!(token.labels.len(), 1);
    assert_eq!(token.labels["team"], "tools");
    assert_eq!(token.allowed_cidrs, ["10.0.0.0/8"]);
    assert_eq!(token.state(), TokenState::Active);
    assert_eq!(token.expire_time, Some(second(YEAR_3000)));
    assert_eq!((token.revoke_time, &*token.revoke_reason), (None, ""));
    assert_eq!(token.created_by, replica.installation.root_secret[5..27], "the caller's token");
    assert!(nanos(token.create_time.as_ref()) > 0);
    let listed =
        root.list_tokens(ListTokensRequest { organization_id: "acme".to_owned(), ..Default::default() });
    assert_eq!(listed.await.unwrap().into_inner().tokens, [token]);
}

#[tokio::test]
async fn only_its_creation_shows_a_secret() {
    let replica = Replica::start().await;
    let mut root = replica.root();

    let made = created(&mut root, ordinary()).await;

    let secret = made.secret;
    let token = made.token.unwrap();
    assert_eq!((secret.len(), &secret[..5], &secret[5..27]), (76, "tokd_", &*token.id));
    let listed = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
    let judged = root.verify(question(&secret, &[])).await.unwrap().into_inner();
    let revoked = root.revoke_token(revocation(&token.id, "leaked")).await.unwrap().into_inner();
    for reply in
        [token.encode_to_vec(), listed.encode_to_vec(), judged.encode_to_vec(), revoked.encode_to_vec()]
    {
        let reply = String::from_utf8_lossy(&reply).into_owned();
        assert!(reply.contains(&token.id));
        assert!(!reply.contains(&secret[27..70]), "the random part in {reply}");
    }
}

#[tokio::test]
async fn both_verifiers_are_stored_and_the_secret_is_in_no_table() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;

    let made = created(&mut replica.root(), ordinary()).await;

    let secret = Secret::parse(&made.secret, &Prefix::default()).unwrap();
    let mut connection = database.connect().await;
    let row = sqlx::query("SELECT durable_hash, mac, mac_key_id FROM tokens WHERE user_id = 'ada'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let durable_hash: Vec<u8> = row.get("durable_hash");
    assert!(durable_hash.starts_with(&[1, 0, 0, 0, 64, 0, 1, 1]), "64 KiB, one pass and one lane");
    assert!(DurableHash::from_bytes(durable_hash).verify(&secret, cheap()).unwrap());
    let mac = Mac {
        key_id: KeyId::from_bytes(row.get::<Vec<u8>, _>("mac_key_id").try_into().unwrap()),
        tag: row.get::<Vec<u8>, _>("mac").try_into().unwrap(),
    };
    assert_eq!(keyring(&[&replica.installation.key]).check(&secret, &mac), MacMatch::Primary);

    let tables: Vec<String> = sqlx::query_scalar("SELECT relname::text FROM pg_stat_user_tables")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(tables.contains(&"tokens".to_owned()) && tables.contains(&"token_events".to_owned()));
    let text = &made.secret[27..70];
    for table in tables {
        let found = format!(
            "SELECT count(*) FROM {table} AS row WHERE row::text LIKE '%{text}%'
             OR row::text LIKE '%' || encode('{text}', 'hex') || '%' OR row::text LIKE '%{}%'",
            hex_of_number(text)
        );
        assert_eq!(database.count(found).await, 0, "the plaintext in {table}");
    }
}

/// Reads 256 bits in base62; returns their 64 hexadecimal digits, as Postgres would show these bytes.
fn hex_of_number(base62: &str) -> String {
    let mut digits = [0_u32; 64];
    for character in base62.chars() {
        let mut carry = match character {
            '0'..='9' => character as u32 - '0' as u32,
            'A'..='Z' => character as u32 - 'A' as u32 + 10,
            _ => character as u32 - 'a' as u32 + 36,
        };
        for digit in digits.iter_mut().rev() {
            carry += *digit * 62;
            *digit = carry % 16;
            carry /= 16;
        }
    }
    digits.iter().filter_map(|digit| char::from_digit(*digit, 16)).collect()
}

#[tokio::test]
async fn an_expiration_must_be_chosen_and_lie_in_the_future() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let ttl = |seconds, nanos| Some(Expiration::Ttl(Duration { seconds, nanos }));
    let at = |seconds| Some(Expiration::ExpireTime(second(seconds)));

    for (expiration, field) in [
        (None, "expiration"),
        (Some(Expiration::NoExpiration(false)), "no_expiration"),
        (at(0), "expire_time"),
        (at(1_700_000_000), "expire_time"),
        (at(LAST_SECOND + 1), "expire_time"),
        (at(i64::MAX), "expire_time"),
        (at(i64::MIN), "expire_time"),
        (
            Some(Expiration::ExpireTime(prost_types::Timestamp { seconds: YEAR_3000, nanos: -1 })),
            "expire_time",
        ),
        (ttl(0, 0), "ttl"),
        (ttl(-1, 0), "ttl"),
        (ttl(0, -1), "ttl"),
        (ttl(LAST_SECOND, 0), "ttl"),
        (ttl(i64::MAX, 999_999_999), "ttl"),
    ] {
        let outcome = root.create_token(CreateTokenRequest { expiration, ..ordinary() }).await;
        let status = refused(outcome, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field], "{expiration:?}");
    }
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM tokens").await, 1, "root alone");
}

#[tokio::test]
async fn each_of_the_three_expirations_is_kept_as_chosen() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut create = async |expiration| {
        created(&mut root, CreateTokenRequest { expiration: Some(expiration), ..ordinary() })
            .await
            .token
            .unwrap()
    };

    let at = create(Expiration::ExpireTime(second(LAST_SECOND))).await;
    let after = create(Expiration::Ttl(Duration { seconds: 3600, nanos: 500_000_000 })).await;
    let never = create(Expiration::NoExpiration(true)).await;

    assert_eq!(at.expire_time, Some(second(LAST_SECOND)));
    let lives = nanos(after.expire_time.as_ref()) - nanos(after.create_time.as_ref());
    assert_eq!(lives, 3_600_500_000_000);
    assert_eq!(never.expire_time, None);
}

#[tokio::test]
async fn a_name_may_be_used_twice() {
    let replica = Replica::shared().await;
    let mut root = replica.root();

    let (first, second) = (created(&mut root, ordinary()).await, created(&mut root, ordinary()).await);

    assert_ne!(first.secret, second.secret);
    assert_ne!(first.token.unwrap().id, second.token.unwrap().id);
    let answer = verified(&mut root, &first.secret, &[]).await;
    assert_eq!(answer.token.unwrap().name, "laptop");
}

#[tokio::test]
async fn without_an_organization_a_token_belongs_to_its_creators() {
    let replica = Replica::shared().await;
    let mut writer = replica.caller("acme", &["tokend:write"]).await;

    let of_root = created(&mut replica.root(), ordinary()).await.token.unwrap();
    let of_writer = created(&mut writer, ordinary()).await.token.unwrap();
    let named = created_with(&mut writer, "acme", &[]).await.token.unwrap();

    assert_eq!(of_root.organization_id, "default");
    assert_eq!(of_writer.organization_id, "acme");
    assert_eq!(named.organization_id, "acme");
}

#[tokio::test]
async fn a_message_over_64_kib_is_refused_unread() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let sized = |bytes: usize| {
        // The field's tag and length take 4 bytes.
        let request = CreateTokenRequest { user_id: "u".repeat(bytes - 4), ..Default::default() };
        assert_eq!(request.encoded_len(), bytes);
        request
    };

    let largest = root.create_token(sized(64 * 1024)).await;
    let larger = root.create_token(sized(64 * 1024 + 1)).await;

    refused(largest, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(larger.unwrap_err().code(), Code::OutOfRange);
    created(&mut root, ordinary()).await;
}
