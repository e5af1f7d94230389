//! That every field of a token is in every answer that shows one. The fields come from the contract, so
//! that one that is added to it is covered.

use std::collections::BTreeSet;

use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    Consistency, CreateTokenRequest, DisableTokenRequest, Grant, ListTokenEventsRequest, ListTokensRequest,
    RotateTokenRequest, Token, Verdict,
};
use tokend::secret::TokenId;
use tokio::process::Command;
use uuid::Uuid;

use super::get::got;
use super::plans::plan;
use crate::support::client::{created, ordinary, question, revoked, rotated, rotation, texts, verified};
use crate::support::contract::{self, Named};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::watch::watcher::Watcher;

/// What the audit log does not record as a change: an event has it itself, or its kind and time say it.
const NOT_RECORDED: [&str; 10] = [
    "id",
    "organization_id",
    "user_id",
    "owner_kind",
    "state",
    "create_time",
    "created_by",
    "last_use_time",
    "last_refusal",
    "revoke_time",
];

#[tokio::test]
async fn every_field_of_a_token_is_in_every_answer_that_shows_one() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let fields = contract::fields_of("Token");
    plan(&replica.installation.database, "default", "free").await;
    let request = CreateTokenRequest {
        scopes: texts(&["a", "tokend:write"]),
        grant: Some(Grant { scopes: texts(&["a"]), all_users: true, ..Grant::default() }),
        plan: "free".to_owned(),
        labels: [("team".to_owned(), "x".to_owned())].into(),
        allowed_cidrs: texts(&["10.0.0.0/8"]),
        expiration: Some(Expiration::Ttl(prost_types::Duration { seconds: 3600, nanos: 0 })),
        ..ordinary()
    };
    let old = created(&mut root, request).await.token.unwrap().id;
    let made = rotated(&mut root, rotation(&old)).await;
    let id = made.token.unwrap().id;
    let mut use_of_it = question(&made.secret, &[]);
    use_of_it.client_ip = "10.0.0.1".to_owned();
    assert_eq!(root.verify(use_of_it).await.unwrap().into_inner().verdict(), Verdict::Valid);
    eventually("the use is recorded", async || got(&mut root, &id).await.last_use_time).await;
    assert_eq!(verified(&mut root, &made.secret, &["no:such"]).await.verdict(), Verdict::MissingScope);
    eventually("the refusal is recorded", async || got(&mut root, &id).await.last_refusal).await;
    let grace_period = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    rotated(&mut root, RotateTokenRequest { grace_period, ..rotation(&id) }).await;
    let disabling = DisableTokenRequest { token_id: id.clone(), ..Default::default() };
    root.disable_token(disabling).await.unwrap();
    let mut watcher = Watcher::start_after_all(&mut root.clone(), &mut root).await;
    revoked(&mut root, &id, "lost").await;
    let filled = fill(&replica.installation.database, &id, &fields).await;

    let whole = got(&mut root, &id).await;
    let without_use = Token { last_use_time: None, last_refusal: None, ..whole.clone() };

    assert_eq!(names(&whole, &fields), fields.iter().map(|field| field.name.clone()).collect());
    let listing = ListTokensRequest { user_id: whole.user_id.clone(), ..Default::default() };
    let listed = root.list_tokens(listing).await.unwrap().into_inner().tokens;
    assert_eq!(listed.iter().find(|token| token.id == id), Some(&whole));
    let mut full = question(&made.secret, &[]);
    full.set_consistency(Consistency::Full);
    assert_eq!(root.verify(full).await.unwrap().into_inner().token.as_ref(), Some(&without_use));
    assert_eq!(verified(&mut root, &made.secret, &[]).await.token.as_ref(), Some(&without_use), "cached");
    while watcher.changes(1).await.iter().all(|change| change.token.as_ref() != Some(&without_use)) {}

    let listing = ListTokenEventsRequest { token_id: id.clone(), ..Default::default() };
    let events = root.list_token_events(listing).await.unwrap().into_inner().events;
    let recorded: BTreeSet<_> =
        events.iter().flat_map(|event| &event.changes).map(|change| &*change.field).collect();
    let expected = fields.iter().map(|field| &*field.name).filter(|name| !NOT_RECORDED.contains(name));
    let missing: Vec<_> =
        expected.filter(|name| !recorded.contains(name) && !filled.contains(*name)).collect();
    assert!(missing.is_empty(), "not in the audit log: {missing:?}");

    let shown = Command::new(env!("CARGO_BIN_EXE_tokend"))
        .args(["token", "get", &id, "--json"])
        .env("TOKEND_ADDRESS", format!("http://{}", replica.address))
        .env("TOKEND_SECRET", &replica.installation.root_secret)
        .output()
        .await
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let keys: BTreeSet<_> = shown.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, fields.iter().map(|field| field.json_name.clone()).collect());
}

/// Returns the names of the fields that are set in a message.
fn names(token: &Token, fields: &[Named]) -> BTreeSet<String> {
    let bytes = token.encode_to_vec();
    let mut rest = &*bytes;
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (number, kind) = decode_key(&mut rest).unwrap();
        skip_field(kind, number, &mut rest, DecodeContext::default()).unwrap();
        names.insert(fields.iter().find(|field| field.number == number).unwrap().name.clone());
    }
    names
}

/// Gives each field that no call above has set some value, in the column of its name, and returns these
/// fields.
async fn fill(database: &Database, id: &str, fields: &[Named]) -> BTreeSet<String> {
    let id = Uuid::from_bytes(TokenId::parse(id).unwrap().to_bytes());
    let mut filled = BTreeSet::new();
    for Named { name, .. } in fields {
        for value in ["now()", "gen_random_uuid()", "true", "'some text'"] {
            // Other types, and fields that are no column, are refused.
            let set = format!("UPDATE tokens SET {name} = {value} WHERE id = '{id}' AND {name} IS NULL");
            if database.try_execute(set).await.is_ok_and(|rows| rows == 1) {
                filled.insert(name.clone());
                break;
            }
        }
    }
    filled
}
