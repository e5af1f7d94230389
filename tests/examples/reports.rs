//! The report service of every example, from its clients' view, and the checks that each example
//! must pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prost::Message;
use tokend::api::proto::CreateTokenRequest;
use tokend::server::ServerConfig;
use tokend::store::ConnectSettings;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::support::client::{created, created_with, ordinary, revoked, texts};
use crate::support::eventually;
use crate::support::program::{Running, free_address};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};

/// The settings of an example.
pub(crate) struct Reports {
    pub(crate) tokend: String,
    pub(crate) secret: String,
    pub(crate) listen: String,
}

/// `reports.v1.GetReportRequest`, and similar ones: each has only a report's id.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    report_id: String,
}

/// `reports.v1.GetReportResponse`.
#[derive(Clone, PartialEq, Message)]
struct Report {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(string, tag = "2")]
    user_id: String,
    #[prost(string, tag = "3")]
    organization_id: String,
}

async fn call(channel: &Channel, method: &str, authorization: Option<&str>) -> Result<Report, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(Named { report_id: "7".to_owned() });
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().unwrap());
    }
    let path = format!("/reports.v1.ReportService/{method}").parse().unwrap();
    client.unary(request, path, ProstCodec::<Named, Report>::default()).await.map(Response::into_inner)
}

async fn code(channel: &Channel, method: &str, secret: &str) -> Code {
    let answer = call(channel, method, Some(&format!("Bearer {secret}"))).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

fn request(scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest { organization_id: "acme".to_owned(), scopes: texts(scopes), ..ordinary() }
}

/// Starts an example with `start`, and runs all checks on it.
pub(crate) async fn guarded(start: impl FnOnce(&Reports) -> Running) {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.serve(config).await;
    let way = Proxy::to_port(replica.address, LinkState::Open).await;
    let reports = Reports {
        tokend: format!("http://{}", way.address()),
        secret: created_with(&mut replica.root(), "acme", &["tokend:verify"]).await.secret,
        listen: free_address().to_string(),
    };
    let mut service = start(&reports);
    let channel = Endpoint::from_shared(format!("http://{}", reports.listen)).unwrap().connect_lazy();
    eventually("the service listens", async || {
        service.check();
        let status = call(&channel, "GetReport", None).await.unwrap_err();
        (status.code() == Code::Unauthenticated).then_some(())
    })
    .await;
    who_may_is_let_in(&replica, &channel).await;
    who_may_not_is_refused(&replica, &channel).await;
    let database = proxy.lead(&installation.config().database);
    let replica = a_restart_costs_no_call(replica, &channel, &way, database).await;
    what_is_not_known_is_neither(replica, &channel, &proxy).await;
    service.check();
}

async fn who_may_is_let_in(replica: &Replica, channel: &Channel) {
    let near = CreateTokenRequest { allowed_cidrs: texts(&["127.0.0.0/8"]), ..request(&["reports:*"]) };
    let secret = created(&mut replica.root(), near).await.secret;

    let report = call(channel, "GetReport", Some(&format!("Bearer {secret}"))).await.unwrap();

    let expected =
        Report { text: "report 7".to_owned(), user_id: "ada".to_owned(), organization_id: "acme".to_owned() };
    assert_eq!(report, expected);
    assert_eq!(code(channel, "DeleteReport", &secret).await, Code::Ok);
    // Refused with any token: no scope was chosen for this RPC.
    assert_eq!(code(channel, "ArchiveReport", &secret).await, Code::PermissionDenied);
}

async fn who_may_not_is_refused(replica: &Replica, channel: &Channel) {
    let mut root = replica.root();
    let reader = created(&mut root, request(&["reports:read"])).await;
    let outsider = CreateTokenRequest { organization_id: "other".to_owned(), ..request(&["reports:*"]) };
    let far = CreateTokenRequest { allowed_cidrs: texts(&["10.0.0.0/8"]), ..request(&["reports:*"]) };
    let (outsider, far) = (created(&mut root, outsider).await.secret, created(&mut root, far).await.secret);

    assert_eq!(code(channel, "GetReport", &reader.secret).await, Code::Ok);
    assert_eq!(code(channel, "DeleteReport", &reader.secret).await, Code::PermissionDenied);
    assert_eq!(code(channel, "GetReport", &far).await, Code::PermissionDenied);
    assert_eq!(code(channel, "GetReport", &outsider).await, Code::Unauthenticated);
    assert_eq!(code(channel, "GetReport", "nonsense").await, Code::Unauthenticated);
    for authorization in [None, Some(&*reader.secret), Some("Basic YTpi"), Some("Bearer ")] {
        let status = call(channel, "GetReport", authorization).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
    revoked(&mut root, &reader.token.unwrap().id, "").await;
    assert_eq!(code(channel, "GetReport", &reader.secret).await, Code::Unauthenticated);
}

/// Calls constantly while tokend is restarted: none of 2,000 or more calls fails.
async fn a_restart_costs_no_call(
    replica: Replica,
    channel: &Channel,
    way: &Proxy,
    database: ConnectSettings,
) -> Replica {
    const CALLERS: usize = 8;
    let secret = created(&mut replica.root(), request(&["reports:read"])).await.secret;
    let (called, restarted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut calling = JoinSet::new();
    for _ in 0..CALLERS {
        let (channel, authorization) = (channel.clone(), format!("Bearer {secret}"));
        let (called, restarted) = (Arc::clone(&called), Arc::clone(&restarted));
        calling.spawn(async move {
            let mut failed = 0;
            while called.load(Ordering::Relaxed) < 2_000 || !restarted.load(Ordering::Relaxed) {
                failed += usize::from(call(&channel, "GetReport", Some(&authorization)).await.is_err());
                called.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
    }
    eventually("they are in the middle of it", async || {
        (called.load(Ordering::Relaxed) >= 500).then_some(())
    })
    .await;
    let installation = replica.installation.clone();
    replica.shut_down().outcome().await.unwrap();
    let next = installation.serve(ServerConfig { database, ..installation.config() }).await;
    way.lead_to_port(next.address);
    let before = called.load(Ordering::Relaxed);
    eventually("they are answered again", async || {
        (called.load(Ordering::Relaxed) > before + 500).then_some(())
    })
    .await;
    restarted.store(true, Ordering::Relaxed);
    assert_eq!(calling.join_all().await.into_iter().sum::<usize>(), 0, "calls failed");
    next
}

async fn what_is_not_known_is_neither(replica: Replica, channel: &Channel, proxy: &Proxy) {
    let secret = created(&mut replica.root(), request(&["reports:read"])).await.secret;
    assert_eq!(code(channel, "GetReport", &secret).await, Code::Ok);

    proxy.set(LinkState::Cut);
    let first = eventually("tokend cannot tell any more", async || {
        let code = code(channel, "GetReport", &secret).await;
        (code != Code::Ok).then_some(code)
    })
    .await;
    assert_eq!(first, Code::Unavailable);

    replica.shut_down().outcome().await.unwrap();
    assert_eq!(code(channel, "GetReport", &secret).await, Code::Unavailable);
}
