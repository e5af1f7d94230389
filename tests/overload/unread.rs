//! Long responses that are not read: they take no more memory than there is, nor what others need,
//! over any protocol; and release it when their connection closes.

use h2::RecvStream;
use h2::client::SendRequest;
use prost::Message;
use tokend::api::http::config::IntegrationsConfig;
use tokend::api::origin::Origin;
use tokend::api::proto::{
    CreateTokenRequest, GetTokenRequest, ListTokenEventsRequest, ListTokensRequest, WatchTokensRequest,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_types::StatusExt as _;

use crate::support::client::{created, created_with, ordinary, revocation, texts};
use crate::support::http::get;
use crate::support::replica::{Installation, Replica};
use crate::support::status::{check, reason};
use crate::support::{eventually, in_time};

/// Memory for five of the longest pages.
const ROOM: usize = 11 << 20;

/// A client with an HTTP/2 window of this many bytes per response, and no more.
struct Hog {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
    secret: String,
    unread: Vec<Response<RecvStream>>,
}

impl Hog {
    async fn new(replica: &Replica, secret: &str, window: u32) -> Self {
        let stream = TcpStream::connect(replica.address).await.unwrap();
        let (requests, connection) =
            h2::client::Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
        let connection = tokio::spawn(async { drop(connection.await) });
        Self { requests, connection, secret: secret.to_owned(), unread: Vec::new() }
    }

    /// Sends a request and leaves its response unread; returns the response's head if it is refused.
    async fn ask(&mut self, kind: &str, rpc: &str, message: &impl Message) -> Result<(), HeaderMap> {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let request = Request::post(format!("http://tokend/tokend.v1.TokenService/{rpc}"))
            .header("content-type", kind)
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.secret))
            .body(())
            .unwrap();
        let (answer, mut body) = requests.send_request(request, false).unwrap();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
        frame.extend(message.encode_to_vec());
        if kind.ends_with("text") {
            use base64::Engine as _;
            frame = base64::prelude::BASE64_STANDARD.encode(frame).into();
        }
        body.send_data(frame.into(), true).unwrap();
        let answer = in_time("the head of an answer", answer).await.unwrap();
        if answer.headers().contains_key("grpc-status") {
            return Err(answer.into_parts().0.headers);
        }
        self.unread.push(answer);
        Ok(())
    }

    /// Sends requests until one is refused because the caller has used its share.
    async fn fill(&mut self, kind: &str, rpc: &str, message: &impl Message) {
        let head = loop {
            match self.ask(kind, rpc, message).await {
                Ok(()) => assert!(self.unread.len() < 100, "nothing was refused"),
                Err(head) => break head,
            }
        };
        let status = tonic::Status::from_header_map(&head).unwrap();
        check(&status, Code::ResourceExhausted, "CALLER_OVER_SHARE");
    }

    async fn go(self) {
        self.connection.abort();
        assert!(self.connection.await.unwrap_err().is_cancelled());
    }
}

/// Returns the value of a metric.
async fn metric(replica: &Replica, name: &str) -> usize {
    let (status, text) = get(replica.http, "/metrics").await;
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

async fn taken(replica: &Replica) -> usize {
    metric(replica, "tokend_response_memory_bytes").await
}

/// Starts a replica with little memory, and more tokens and events than a page holds.
async fn replica() -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.limits.response_memory_bytes = ROOM;
    config.integrations = IntegrationsConfig {
        web_origins: vec![Origin::parse("https://a.example").unwrap()],
        ..IntegrationsConfig::default()
    };
    let replica = installation.serve(config).await;
    fill(&replica).await;
    replica
}

/// Creates more tokens and events than a page holds.
async fn fill(replica: &Replica) {
    let labels = (0..32).map(|number| (format!("label-{number}"), "x".repeat(250))).collect();
    let request = CreateTokenRequest { labels, organization_id: "acme".to_owned(), ..ordinary() };
    created(&mut replica.root(), request).await;
    for copies in [
        "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, allowed_cidrs, create_time,
            created_by, expire_time, durable_hash, mac, mac_key_id)
        SELECT gen_random_uuid(), organization_id, user_id, name, scopes, labels, allowed_cidrs, create_time,
            created_by, expire_time, durable_hash, mac, mac_key_id
        FROM tokens, generate_series(1, 300) WHERE organization_id = 'acme'",
        "INSERT INTO token_events (event_time, kind, token_id, organization_id, user_id, actor, changes)
        SELECT event_time, kind, token_id, organization_id, user_id, actor, changes
        FROM token_events, generate_series(1, 300) WHERE organization_id = 'acme'",
    ] {
        assert_eq!(replica.installation.database.execute(copies).await, 300);
    }
}

fn tokens() -> ListTokensRequest {
    ListTokensRequest { page_size: 1000, ..Default::default() }
}

fn events() -> ListTokenEventsRequest {
    ListTokenEventsRequest { page_size: 1000, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_leaves_memory_for_others_and_frees_its_own_when_it_leaves() {
    let replica = replica().await;
    let hog = created_with(&mut replica.root(), "acme", &["tokend:read", "tokend:write"]).await.secret;
    // Memory is shared by user, across all of a user's tokens.
    let grace = CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: "grace".to_owned(),
        scopes: texts(&["tokend:read"]),
        ..ordinary()
    };
    let mut other = replica.client(&created(&mut replica.root(), grace).await.secret);
    // Nothing is read at all, or so little that the rest waits in the connection.
    for window in [0, 1] {
        let mut hogs = Vec::new();
        for (kind, rpc) in [
            ("application/grpc", "ListTokens"),
            ("application/grpc", "ListTokenEvents"),
            ("application/grpc-web-text", "ListTokens"),
        ] {
            let mut one = Hog::new(&replica, &hog, window).await;
            match rpc {
                "ListTokens" => one.fill(kind, rpc, &tokens()).await,
                _ => one.fill(kind, rpc, &events()).await,
            }
            // The first one has used the whole share; another connection of the same caller then
            // gets none.
            assert_eq!(one.unread.is_empty(), !hogs.is_empty(), "{kind} {rpc}");
            hogs.push(one);
        }
        let held = taken(&replica).await;
        assert!((ROOM / 3..ROOM * 2 / 3).contains(&held), "{held} bytes");

        for _ in 0..20 {
            let page = other.list_tokens(tokens()).await.unwrap().into_inner();
            assert!(page.tokens.len() > 100 && !page.next_page_token.is_empty());
            other.list_token_events(events()).await.unwrap();
        }

        // Even for this caller there is memory for revocations.
        let leaked = created_with(&mut replica.root(), "acme", &["a"]).await.token.unwrap();
        replica.client(&hog).revoke_token(revocation(&leaked.id, "")).await.unwrap();

        for hog in hogs {
            hog.go().await;
        }
        eventually("nothing is held", async || (taken(&replica).await == 0).then_some(())).await;
    }
    let mut hog = replica.client(&hog);
    assert!(!hog.list_tokens(tokens()).await.unwrap().into_inner().tokens.is_empty());
    assert!(metric(&replica, r#"tokend_response_memory_refused_total{reason="over_share"}"#).await >= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_long_response_reserves_memory_until_it_is_read() {
    let replica = replica().await;
    let hog = created_with(&mut replica.root(), "acme", &["tokend:read"]).await.secret;
    for kind in ["application/grpc", "application/grpc-web", "application/grpc-web-text"] {
        let mut hog = Hog::new(&replica, &hog, 0).await;
        hog.fill(kind, "ListTokenEvents", &events()).await;
        let held = taken(&replica).await;
        assert!((ROOM / 3..ROOM * 2 / 3).contains(&held), "{kind}: {held} bytes");
        hog.go().await;
        eventually("nothing is held", async || (taken(&replica).await == 0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_short_responses_reserve_memory_like_a_long_one() {
    let replica = replica().await;
    let mut root = replica.root();
    let secret = created_with(&mut root, "acme", &["tokend:read"]).await.secret;
    let page = ListTokensRequest { organization_id: "acme".to_owned(), ..Default::default() };
    let listed = root.list_tokens(page).await.unwrap().into_inner().tokens;
    let token = listed.into_iter().find(|token| !token.labels.is_empty()).unwrap();
    let get = GetTokenRequest { token_id: token.id };
    // One fewer than the calls that a connection may have open.
    let mut hogs = Vec::new();
    let refused = 'asking: loop {
        let mut hog = Hog::new(&replica, &secret, 0).await;
        for _ in 0..255 {
            if let Err(head) = hog.ask("application/grpc", "GetToken", &get).await {
                hogs.push(hog);
                break 'asking head;
            }
        }
        hogs.push(hog);
        assert!(hogs.len() < 200, "nothing was refused");
    };

    let status = tonic::Status::from_header_map(&refused).unwrap();
    check(&status, Code::ResourceExhausted, "CALLER_OVER_SHARE");
    let held = taken(&replica).await;
    assert!((ROOM / 3..ROOM * 2 / 3).contains(&held), "{held} bytes");
    for hog in hogs {
        hog.go().await;
    }
    eventually("nothing is held", async || (taken(&replica).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_changes_reserve_memory_until_the_watcher_leaves() {
    let replica = replica().await;
    let hog = created_with(&mut replica.root(), "acme", &["tokend:read"]).await.secret;
    let mut hog = Hog::new(&replica, &hog, 0).await;
    hog.ask("application/grpc", "WatchTokens", &WatchTokensRequest::default()).await.unwrap();

    eventually("its first message is held", async || (taken(&replica).await > 0).then_some(())).await;

    hog.go().await;
    eventually("nothing is held", async || (taken(&replica).await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_concurrent_pages_are_refused_with_their_own_reason() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    // One of them is for pages.
    config.database_connections = 2;
    let replica = installation.serve(config).await;
    fill(&replica).await;
    let root = replica.root();
    let calls: Vec<_> = (0..400)
        .map(|_| {
            let mut root = root.clone();
            tokio::spawn(async move { root.list_tokens(tokens()).await })
        })
        .collect();

    let (mut listed, mut refused) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => listed += 1,
            Err(status) => {
                let why = reason(&status).unwrap();
                assert!(["CALLER_OVER_SHARE", "OVERLOADED"].contains(&&*why), "{status:?}");
                assert!(status.get_details_retry_info().is_some());
                refused += 1;
            }
        }
    }

    assert!(listed > 0 && refused > 0, "{listed} listed, {refused} refused");
}

#[tokio::test]
async fn reflection_limits_concurrent_calls_and_frees_them_again() {
    let replica = Replica::start().await;
    let mut client = ServerReflectionClient::new(replica.channel());
    let mut ask = async || {
        // Open until the sender is dropped.
        let (sender, questions) = mpsc::channel(1);
        client.server_reflection_info(ReceiverStream::new(questions)).await.map(|answers| (sender, answers))
    };
    let mut open = Vec::new();

    let refused = loop {
        match ask().await {
            Ok(call) => open.push(call),
            Err(status) => break status,
        }
        assert!(open.len() < 100, "nobody is refused");
    };

    check(&refused, Code::ResourceExhausted, "CALLER_OVER_SHARE");
    drop(open);
    eventually("a place", async || ask().await.ok().map(drop)).await;
}

#[tokio::test]
async fn health_limits_concurrent_watches_and_frees_them_again() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.limits.connections = 16;
    let replica = installation.serve(config).await;
    let mut client = HealthClient::new(replica.channel());
    let mut ask = async || client.watch(HealthCheckRequest { service: String::new() }).await;
    let mut open = Vec::new();

    let refused = loop {
        match ask().await {
            Ok(watch) => open.push(watch),
            Err(status) => break status,
        }
        assert!(open.len() < 16, "nobody is refused");
    };

    check(&refused, Code::ResourceExhausted, "CALLER_OVER_SHARE");
    drop(open);
    eventually("a place", async || ask().await.ok().map(drop)).await;
}
