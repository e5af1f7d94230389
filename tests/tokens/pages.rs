//! Paging through a listing: sizes, page tokens, and that nothing is missed or shown twice during
//! concurrent creations and revocations.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prost::Message as _;
use tokend::api::proto::{CreateTokenRequest, ListTokensRequest, ListTokensResponse, TokenState};
use tonic::Code;

use crate::support::client::{Client, created, created_with, ordinary, revocation, revoked, second};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::Replica;
use crate::support::status::refused;

/// Creates copies of the one token of user `ada`, a third of them of equal age.
async fn multiply(database: &Database, copies: usize) {
    let sql =
        "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, allowed_cidrs, create_time, created_by,
            expire_time, revoke_time, revoke_reason, durable_hash, mac, mac_key_id)
        SELECT gen_random_uuid(), organization_id, user_id, name, scopes, labels, allowed_cidrs,
            create_time - (copy / 3) * interval '1 ms', created_by,
            CASE copy % 2 WHEN 0 THEN expire_time ELSE create_time + (copy / 5 + 1) * interval '1 day' END,
            revoke_time, revoke_reason, durable_hash, mac, mac_key_id
        FROM tokens, generate_series(1, $copies) AS copy WHERE user_id = 'ada'";
    let made = database.execute(sql.replace("$copies", &copies.to_string())).await;
    assert_eq!(made, copies as u64);
}

fn sized(page_size: i32) -> ListTokensRequest {
    ListTokensRequest { user_id: "ada".to_owned(), page_size, ..Default::default() }
}

async fn page(client: &mut Client, request: ListTokensRequest) -> ListTokensResponse {
    client.list_tokens(request).await.unwrap().into_inner()
}

/// Pages to the end and returns how often each token was shown; `between` runs after each page.
async fn walk(
    client: &mut Client,
    mut request: ListTokensRequest,
    mut between: impl AsyncFnMut(&ListTokensResponse),
) -> HashMap<String, usize> {
    let mut shown = HashMap::new();
    loop {
        let page = page(client, request.clone()).await;
        between(&page).await;
        for token in page.tokens {
            *shown.entry(token.id).or_default() += 1;
        }
        if page.next_page_token.is_empty() {
            return shown;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn a_page_has_50_tokens_by_default_and_at_most_1000() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;
    multiply(&replica.installation.database, 1004).await;

    for (asked, expected) in [(0, 50), (1, 1), (50, 50), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
        let page = page(&mut root, sized(asked)).await;
        assert_eq!(page.tokens.len(), expected, "page_size {asked}");
        assert!(!page.next_page_token.is_empty());
    }
    let first = page(&mut root, sized(1000)).await;
    let last = page(&mut root, ListTokensRequest { page_token: first.next_page_token, ..sized(1000) }).await;
    assert_eq!((last.tokens.len(), &*last.next_page_token), (5, ""));
}

#[tokio::test]
async fn the_last_page_says_so_even_when_it_is_full() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;
    multiply(&replica.installation.database, 5).await;

    let first = page(&mut root, sized(3)).await;
    let last = page(&mut root, ListTokensRequest { page_token: first.next_page_token, ..sized(3) }).await;

    assert_eq!((last.tokens.len(), &*last.next_page_token), (3, ""));
}

#[tokio::test]
async fn pages_have_no_gap_or_overlap_in_both_orders_and_any_size() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;
    multiply(&replica.installation.database, 40).await;

    for order_by in ["create_time desc", "expire_time"] {
        for organization_id in ["", "default"] {
            let all = |page_size| ListTokensRequest {
                organization_id: organization_id.to_owned(),
                order_by: order_by.to_owned(),
                ..sized(page_size)
            };
            let whole = page(&mut root, all(1000)).await.tokens;
            assert_eq!(whole.len(), 41);
            let (mut joined, mut page_token, mut page_size) = (Vec::new(), String::new(), 1);
            loop {
                let page = page(&mut root, ListTokensRequest { page_token, ..all(page_size) }).await;
                joined.extend(page.tokens);
                if page.next_page_token.is_empty() {
                    break;
                }
                page_token = page.next_page_token;
                page_size = page_size % 7 + 1;
            }
            assert_eq!(joined, whole, "by {order_by}");
        }
    }
}

#[tokio::test]
async fn a_page_ends_early_rather_than_exceed_2_mib() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let largest = CreateTokenRequest {
        organization_id: "o".repeat(200),
        user_id: "ada".to_owned(),
        name: "\u{1f511}".repeat(100),
        scopes: (0..64).map(|index| format!("{index:02}{}", "s".repeat(98))).collect(),
        labels: (0..32).map(|index| (format!("{index:02}{}", "k".repeat(61)), "v".repeat(255))).collect(),
        allowed_cidrs: (0..64)
            .map(|index| format!("2001:db8:ffff:ffff:ffff:ffff:ffff:{index:04x}/128"))
            .collect(),
        ..ordinary()
    };
    let id = created(&mut root, largest).await.token.unwrap().id;
    revoked(&mut root, &id, &"r".repeat(500)).await;
    multiply(&replica.installation.database, 299).await;

    let mut pages = 0;
    let shown = walk(&mut root, sized(1000), async |page| {
        pages += 1;
        let bytes = page.encoded_len();
        assert!(bytes <= 2 << 20, "{bytes} bytes");
        assert!(bytes > 3 << 19 || page.next_page_token.is_empty(), "{bytes} bytes are no reason to end");
    })
    .await;

    assert!(pages > 1);
    assert_eq!(shown.len(), 300);
    assert!(shown.values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_page_token_is_accepted_only_by_its_own_listing() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    for organization in ["acme", "other"] {
        for _ in 0..3 {
            created_with(&mut root, organization, &[]).await;
        }
    }
    let own = |page_token: &str| ListTokensRequest {
        organization_id: "acme".to_owned(),
        page_token: page_token.to_owned(),
        ..sized(1)
    };
    let token = page(&mut root, own("")).await.next_page_token;
    let blank = || own(&token);

    let mut altered = token.clone().into_bytes();
    altered[10] = if altered[10] == b'A' { b'B' } else { b'A' };
    for request in [
        ListTokensRequest { organization_id: String::new(), ..blank() },
        ListTokensRequest { organization_id: "other".to_owned(), ..blank() },
        ListTokensRequest { user_id: String::new(), ..blank() },
        ListTokensRequest { user_id: "bob".to_owned(), ..blank() },
        ListTokensRequest { states: vec![TokenState::Active.into()], ..blank() },
        ListTokensRequest { order_by: "expire_time".to_owned(), ..blank() },
        ListTokensRequest { created_after: Some(second(1)), ..blank() },
        ListTokensRequest { created_before: Some(second(32_503_680_000)), ..blank() },
        ListTokensRequest { expires_before: Some(second(32_503_680_000)), ..blank() },
        ListTokensRequest { unused_since: Some(second(32_503_680_000)), ..blank() },
        ListTokensRequest { name_contains: "laptop".to_owned(), ..blank() },
        own(std::str::from_utf8(&altered).unwrap()),
        own(&token[1..]),
        own(&format!("{token}A")),
        own("?"),
        own("AAAA"),
        own(&"A".repeat(55)),
    ] {
        let shown = format!("{request:?}");
        let status = refused(root.list_tokens(request).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
        assert_eq!(crate::support::status::fields(&status), ["page_token"], "{shown}");
    }
    let same = ListTokensRequest { page_size: 500, order_by: "create_time desc".to_owned(), ..blank() };
    assert_eq!(page(&mut root, same).await.tokens.len(), 2, "its own, in other words and another size");
}

#[tokio::test]
async fn a_page_token_of_another_organizations_caller_is_refused() {
    let replica = Replica::start().await;
    let mut acme = replica.caller("acme", &["tokend:read", "tokend:write"]).await;
    let mut other = replica.caller("other", &["tokend:read"]).await;
    for _ in 0..2 {
        created(&mut acme, ordinary()).await;
    }
    let page_token = page(&mut acme, sized(1)).await.next_page_token;
    let next = ListTokensRequest { page_token, ..sized(1) };

    refused(other.list_tokens(next.clone()).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");

    let named = ListTokensRequest { organization_id: "acme".to_owned(), ..next };
    assert_eq!(page(&mut acme, named.clone()).await.tokens.len(), 1, "the same organization, named");
    assert_eq!(page(&mut replica.root(), named).await.tokens.len(), 1, "the same listing, another caller");
}

#[tokio::test]
async fn no_token_is_missing_or_repeated_while_others_create_and_revoke() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;
    multiply(&replica.installation.database, 150).await;
    let from_the_beginning: Vec<_> =
        page(&mut root, sized(1000)).await.tokens.into_iter().map(|token| token.id).collect();
    let writers = Writers::start(&replica, &from_the_beginning);

    for order_by in ["create_time desc", "expire_time"] {
        let request = ListTokensRequest { order_by: order_by.to_owned(), ..sized(7) };
        let shown = walk(&mut root, request, async |_| writers.write_on().await).await;

        let missing = from_the_beginning.iter().filter(|id| !shown.contains_key(*id)).count();
        let repeated = shown.values().filter(|times| **times > 1).count();
        assert_eq!((missing, repeated), (0, 0), "missing and repeated of {} by {order_by}", shown.len());
    }
    writers.stop().await;
}

#[tokio::test]
async fn a_search_scans_ten_thousand_tokens_per_call_and_continues() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;
    multiply(&replica.installation.database, 25_000).await;
    let needle = "UPDATE tokens SET name = 'needle' WHERE id IN (
        (SELECT id FROM tokens WHERE user_id = 'ada' ORDER BY create_time, id DESC LIMIT 1)
        UNION ALL (SELECT id FROM tokens WHERE user_id = 'ada' ORDER BY create_time DESC, id_order(id) DESC LIMIT 1)
        UNION ALL (SELECT id FROM tokens WHERE user_id = 'ada' ORDER BY create_time DESC, id_order(id) DESC
            OFFSET 9999 LIMIT 1))";
    assert_eq!(replica.installation.database.execute(needle).await, 3);

    for (order_by, expected) in [("create_time desc", Some(&[2, 0, 1][..])), ("expire_time", None)] {
        let mut found = Vec::new();
        let request = ListTokensRequest {
            name_contains: "NEEDLE".to_owned(),
            order_by: order_by.to_owned(),
            ..sized(0)
        };
        let shown = walk(&mut root, request, async |page| found.push(page.tokens.len())).await;

        assert_eq!((found.len(), shown.len()), (3, 3), "by {order_by}: {found:?}");
        assert!(shown.values().all(|times| *times == 1));
        assert!(expected.is_none_or(|expected| found == expected), "{found:?}");
    }
}

/// Callers that create and revoke until they are stopped.
struct Writers {
    written: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    fn start(replica: &Replica, victims: &[String]) -> Self {
        let (written, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let tasks = (0..3).map(|number| {
            let (mut root, written, stopped) = (replica.root(), Arc::clone(&written), Arc::clone(&stopped));
            let victims: Vec<_> = victims.iter().skip(number).step_by(3).cloned().collect();
            tokio::spawn(async move {
                for victim in victims.iter().cycle() {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    created(&mut root, ordinary()).await;
                    root.revoke_token(revocation(victim, "")).await.unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let tasks = tasks.collect();
        Self { written, stopped, tasks }
    }

    /// Waits until they have written again since the call.
    async fn write_on(&self) {
        let before = self.written.load(Ordering::Relaxed);
        eventually("the writers go on", async || {
            (self.written.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}
