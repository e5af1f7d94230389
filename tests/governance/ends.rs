//! Tokens near and long after their end.

use tokend::grpc::proto::create_token_request::Expiration;
use tokend::grpc::proto::{
    ChangeKind, CreateTokenRequest, ListTokenEventsRequest, TokenEventKind, WatchTokensRequest,
};

use tokend::store::Store;

use crate::support::client::{Client, created, ordinary};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};

const DAY: i64 = 86_400;
const CREATED: TokenEventKind = TokenEventKind::Created;
const SOON: TokenEventKind = TokenEventKind::ExpiresSoon;

fn for_days(days: i64) -> CreateTokenRequest {
    let ttl = prost_types::Duration { seconds: days * DAY, nanos: 0 };
    CreateTokenRequest { expiration: Some(Expiration::Ttl(ttl)), ..ordinary() }
}

async fn kinds(client: &mut Client, id: &str) -> Vec<TokenEventKind> {
    let request = ListTokenEventsRequest { token_id: id.to_owned(), ..Default::default() };
    let events = client.list_token_events(request).await.unwrap().into_inner().events;
    events.iter().map(tokend::grpc::proto::TokenEvent::kind).collect()
}

/// Makes a token as it would be when these days have gone by.
async fn aged(replica: &Replica, id: &str, days: i64) {
    let id = tokend::secret::TokenId::parse(id).unwrap();
    let hex: String = id.to_bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let sql = format!(
        "UPDATE tokens SET create_time = create_time - interval '{days} days',
             expire_time = expire_time - interval '{days} days',
             revoke_time = revoke_time - interval '{days} days' WHERE id = '{hex}'"
    );
    assert_eq!(replica.installation.database.execute(sql).await, 1);
}

#[tokio::test]
async fn a_token_is_warned_of_once_for_each_time_ahead_whichever_replicas_run() {
    let installation = Installation::new().await;
    let first = installation.serve(installation.config()).await;
    let _second = installation.serve(installation.config()).await;
    let mut root = first.root();
    let mut watch = root.watch_tokens(WatchTokensRequest::default()).await.unwrap().into_inner();
    let id = created(&mut root, for_days(30)).await.token.unwrap().id;
    let short = created(&mut root, for_days(3)).await.token.unwrap().id;

    aged(&first, &id, 24).await;
    eventually("the first warning", async || (kinds(&mut root, &id).await.len() == 2).then_some(())).await;
    aged(&first, &id, 5).await;

    // A moved expiration is another one, and is warned of anew for both times.
    eventually("the other warnings", async || (kinds(&mut root, &id).await.len() == 4).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(kinds(&mut root, &id).await, [SOON, SOON, SOON, CREATED]);
    assert_eq!(kinds(&mut root, &short).await, [CREATED], "it was made to live for less than a week");
    let heard = async {
        loop {
            let message = watch.message().await.unwrap().unwrap();
            if message.changes.iter().any(|c| c.kind() == ChangeKind::ExpiresSoon && c.token_id == id) {
                return;
            }
        }
    };
    crate::support::in_time("a watcher hears of it", heard).await;
}

#[tokio::test]
async fn a_token_is_deleted_long_after_its_end_and_its_events_stay() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let old = created(&mut root, for_days(1)).await.token.unwrap().id;
    let recent = created(&mut root, for_days(1)).await.token.unwrap().id;

    aged(&replica, &recent, 300).await;
    aged(&replica, &old, 402).await;

    eventually("the old one is purged", async || {
        kinds(&mut root, &old).await.contains(&TokenEventKind::Purged).then_some(())
    })
    .await;
    let database = &replica.installation.database;
    assert_eq!(database.count("SELECT count(*) FROM tokens WHERE user_id = 'ada'").await, 1);
    assert!(!kinds(&mut root, &recent).await.contains(&TokenEventKind::Purged));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_purge_at_once_delete_each_token_once_and_keep_what_is_not_over() {
    let installation = Installation::new().await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    let kept = created(&mut root, for_days(30)).await.token.unwrap().id;
    let database = &installation.database;
    // More than two batches.
    let over = "WITH over AS (
            INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, allowed_cidrs, create_time,
                created_by, expire_time, durable_hash, mac, mac_key_id)
            SELECT gen_random_uuid(), 'over', user_id, name, scopes, labels, allowed_cidrs,
                create_time - interval '500 days', created_by, create_time - interval '401 days', durable_hash,
                mac, mac_key_id
            FROM tokens, generate_series(1, 1300) WHERE user_id = 'ada' RETURNING id
        )
        INSERT INTO token_uses (token_id, last_use_time) SELECT id, now() - interval '402 days' FROM over";
    let stores: Vec<_> = (0..4)
        .map(|_| {
            let store = Store::new(database.options(), 2);
            store.open();
            store
        })
        .collect();
    assert_eq!(database.execute(over).await, 1_300);

    let purging = stores.iter().map(|store| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut purged = 0;
            for _ in 0..20 {
                purged += store.purge_tokens(std::time::Duration::from_hours(24 * 400)).await.unwrap();
                store.purge_changes().await.unwrap();
                store.purge_requests().await.unwrap();
                store.purge_replicas().await.unwrap();
            }
            purged
        })
    });
    let purging: Vec<_> = purging.collect();
    for purged in purging {
        // The replica's own job has its part in it.
        assert!(purged.await.unwrap() <= 1_300);
    }

    let left = "SELECT count(*) FROM tokens WHERE organization_id = 'over'";
    eventually("all are gone", async || (database.count(left).await == 0).then_some(())).await;
    let told = "SELECT count(*) FROM token_events WHERE kind = 'purged'";
    assert_eq!(database.count(told).await, 1_300);
    let once = "SELECT count(DISTINCT token_id) FROM token_events WHERE kind = 'purged'";
    assert_eq!(database.count(once).await, 1_300);
    let uses = "SELECT count(*) FROM token_uses WHERE token_id NOT IN (SELECT id FROM tokens)";
    assert_eq!(database.count(uses).await, 0);
    assert_eq!(kinds(&mut root, &kept).await, [CREATED]);
    for store in stores {
        store.close().await;
    }
}
