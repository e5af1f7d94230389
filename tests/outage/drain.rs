//! The shutdown of a replica: health reports it first, running calls are answered, and nothing
//! delays it for longer than allowed.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokend::api::proto::CreateTokenResponse;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::support::client::{created, ordinary};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica, SERVICE};
use crate::support::{eventually, in_time};

const A_LONG_TIME: Duration = Duration::from_hours(1);

async fn draining_within(limit: Duration) -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.drain_timeout = limit;
    installation.serve(config).await
}

/// Opens a watch of the service's health that has reported SERVING.
async fn watch(replica: &Replica) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut watch = HealthClient::new(replica.channel()).watch(request).await.unwrap().into_inner();
    assert_eq!(next_status(&mut watch).await, Some(ServingStatus::Serving as i32));
    watch
}

/// Returns the next message of a watch; `None`: it has ended.
async fn next_status(watch: &mut Streaming<HealthCheckResponse>) -> Option<i32> {
    in_time("the watch", watch.message()).await.ok().flatten().map(|response| response.status)
}

/// A creation that cannot end before its lock is released.
struct Blocked {
    lock: PgConnection,
    creation: JoinHandle<Result<Response<CreateTokenResponse>, Status>>,
}

impl Blocked {
    async fn start(replica: &Replica) -> Self {
        let database = &replica.installation.database;
        let mut lock = database.connect().await;
        sqlx::query("BEGIN").execute(&mut lock).await.unwrap();
        sqlx::query("LOCK TABLE token_events IN ACCESS EXCLUSIVE MODE").execute(&mut lock).await.unwrap();
        let mut root = replica.root();
        let creation = tokio::spawn(async move { root.create_token(ordinary()).await });
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually("the creation waits", async || (database.count(waiting).await > 0).then_some(())).await;
        Self { lock, creation }
    }

    async fn release(self) -> Result<Response<CreateTokenResponse>, Status> {
        self.lock.close().await.unwrap();
        in_time("the creation", self.creation).await.unwrap()
    }
}

#[tokio::test]
async fn an_idle_replica_ends_at_once_even_with_open_connections() {
    let replica = draining_within(A_LONG_TIME).await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;

    replica.shut_down().outcome().await.unwrap();

    assert!(root.create_token(ordinary()).await.is_err());
}

#[tokio::test]
async fn health_changes_before_running_calls_end_and_the_replica_exits() {
    let replica = draining_within(A_LONG_TIME).await;
    let database = replica.installation.database.clone();
    let mut health = watch(&replica).await;
    let blocked = Blocked::start(&replica).await;

    let ending = replica.shut_down();
    assert_eq!(next_status(&mut health).await, Some(ServingStatus::NotServing as i32));
    assert!(!ending.has_come(), "a call is running");
    let answer = blocked.release().await.unwrap().into_inner();

    assert_eq!(answer.token.unwrap().name, "laptop");
    assert_eq!(database.count("SELECT count(*) FROM tokens WHERE user_id = 'ada'").await, 1);
    ending.outcome().await.unwrap();
}

#[tokio::test]
async fn a_watch_of_health_is_notified_and_does_not_delay_the_shutdown() {
    let replica = draining_within(A_LONG_TIME).await;
    let (mut first, mut second) = (watch(&replica).await, watch(&replica).await);

    let ending = replica.shut_down();

    for watch in [&mut first, &mut second] {
        assert_eq!(next_status(watch).await, Some(ServingStatus::NotServing as i32));
        eventually("the watch ends", async || next_status(watch).await.is_none().then_some(())).await;
    }
    ending.outcome().await.unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off_at_the_drain_timeout() {
    let replica = draining_within(Duration::from_millis(200)).await;
    let database = replica.installation.database.clone();
    let blocked = Blocked::start(&replica).await;

    replica.shut_down().outcome().await.unwrap();

    assert!(in_time("the creation", blocked.creation).await.unwrap().is_err());
    blocked.lock.close().await.unwrap();
    let kept = "SELECT count(*) FROM tokens WHERE user_id = 'ada'";
    assert_eq!(database.count(kept).await, 0, "half of the creation");
}

#[tokio::test]
async fn a_replica_that_waits_for_postgres_can_be_stopped() {
    let proxy = Proxy::start(LinkState::Cut).await;
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.launch(config);
    assert_eq!(replica.health("").await, ServingStatus::NotServing);

    replica.shut_down().outcome().await.unwrap();
}

#[tokio::test]
async fn a_replica_stops_while_postgres_is_silent() {
    let proxy = Proxy::start(LinkState::Open).await;
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.serve(config).await;
    created(&mut replica.root(), ordinary()).await;
    proxy.set(LinkState::Stalled);

    replica.shut_down().outcome().await.unwrap();
}

#[tokio::test]
async fn new_calls_during_the_drain_are_refused_at_once() {
    let replica = draining_within(A_LONG_TIME).await;
    let (address, blocked) = (replica.address, Blocked::start(&replica).await);

    let ending = replica.shut_down();

    eventually("a connection is refused", async || TcpStream::connect(address).await.is_err().then_some(()))
        .await;
    assert!(!ending.has_come(), "a call is running");
    blocked.release().await.unwrap();
    ending.outcome().await.unwrap();
}

#[tokio::test]
async fn an_open_reflection_call_does_not_delay_the_shutdown() {
    let replica = draining_within(A_LONG_TIME).await;
    let (questions, asked) = mpsc::channel(1);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    questions.send(request).await.unwrap();
    let mut client = ServerReflectionClient::new(replica.channel());
    let answers = client.server_reflection_info(ReceiverStream::new(asked)).await;
    let mut answers = answers.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());

    replica.shut_down().outcome().await.unwrap();

    assert!(in_time("the end of the call", answers.message()).await.unwrap().is_none());
    drop(questions);
}
