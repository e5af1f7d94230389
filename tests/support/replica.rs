//! Installations, each a database with a root token and a key, and replicas: servers as
//! `tokend serve` would run them, in this process but each with its own port, thread and runtime.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokend::api::http::config::IntegrationsConfig;
use tokend::clock;
use tokend::domain::CertificateMappings;
use tokend::jobs::reload::Origins;
use tokend::jobs::retention::Retention;
use tokend::secret::{DurableCost, Keyring, Prefix};
use tokend::server::{self, Limits, Listeners, ServeError, ServerConfig, Timeouts};
use tokend::store::Store;
use tokend::telemetry::Sampling;
use tokend::tokens::bootstrap::{Bootstrapped, bootstrap};
use tokend::verify::Bounds;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{OnceCell, oneshot};

use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::client::{Client, bearing, created_with};
use super::database::Database;
use super::server::Server;
use super::{eventually, in_time};

/// The full name of the service, as health and reflection know it.
pub(crate) const SERVICE: &str = "tokend.v1.TokenService";

/// How often retention runs in the tests of it; in others it runs only at the start, which costs less.
pub(crate) const RETENTION_INTERVAL: Duration = Duration::from_millis(200);

/// The state that outlives a replica.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) database: Database,
    pub(crate) key: String,
    pub(crate) root_secret: String,
}

/// A running server. Ends, at the latest, when it is dropped.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) installation: Installation,
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) console: SocketAddr,
    shutdown: oneshot::Sender<()>,
    outcome: oneshot::Receiver<Result<(), ServeError>>,
}

fn listener() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Waits until the server of a channel reports SERVING.
pub(crate) async fn wait_until_serving(channel: Channel) {
    eventually("the replica serves", async || {
        let request = HealthCheckRequest { service: SERVICE.to_owned() };
        let answer = HealthClient::new(channel.clone()).check(request).await.ok()?.into_inner();
        (answer.status == 1).then_some(())
    })
    .await;
}

/// Returns a new line of a keyring.
pub(crate) fn new_key() -> String {
    Keyring::generate_entry(&mut clock::randomness()).unwrap().expose_secret().to_owned()
}

/// Returns a keyring of these lines, the first one primary.
pub(crate) fn keyring(keys: &[&str]) -> Arc<Keyring> {
    Arc::new(Keyring::parse(&keys.join("\n")).unwrap())
}

/// Returns the lowest possible cost: tests create many tokens.
pub(crate) fn cheap() -> DurableCost {
    DurableCost::new(64, 1, 1).unwrap()
}

impl Installation {
    /// Creates an installation with a fresh database; all of a binary's have one key and one root secret.
    pub(crate) async fn new() -> Self {
        static MADE: OnceCell<Installation> = OnceCell::const_new();
        let made = MADE.get_or_init(async || Self::on(Database::migrated().await).await).await;
        Self { database: made.database.copied().await, ..made.clone() }
    }

    /// Creates one for a test with many rows, on the server of those: a transaction that lasts seconds keeps the changes of
    /// every database of its server from the watchers.
    pub(crate) async fn large() -> Self {
        static MADE: OnceCell<(Server, Installation)> = OnceCell::const_new();
        let start = async || {
            let server = Server::start();
            let installation = Self::on(Database::migrated_on(server.socket_dir()).await).await;
            (server, installation)
        };
        let (_, made) = MADE.get_or_init(start).await;
        Self { database: made.database.copied().await, ..made.clone() }
    }

    /// Creates an installation in a database with the schema and no tokens.
    pub(crate) async fn on(database: Database) -> Self {
        let key = new_key();
        let store = Store::new(database.options(), 1);
        store.open();
        let made = bootstrap(&store, &keyring(&[&key]), &Prefix::default(), cheap(), |_| Ok(())).await;
        store.close().await;
        let Bootstrapped::Created(secret) = made.unwrap() else { panic!("there was a root token") };
        Self { database, key, root_secret: secret.expose_secret().to_owned() }
    }

    /// Returns the default configuration of its replicas.
    pub(crate) fn config(&self) -> ServerConfig {
        ServerConfig {
            tls: None,
            certificates: CertificateMappings::default(),
            limits: Limits {
                connections: 2048,
                streams: 256,
                calls: 4096,
                response_memory_bytes: 64 << 20,
                timeouts: Timeouts::default(),
            },
            database: self.database.connect_settings(),
            direct_database: None,
            database_connections: 16,
            migrate: true,
            require_fsync: false,
            keyring: keyring(&[&self.key]),
            origins: Origins::default(),
            prefix: Prefix::default(),
            durable_cost: cheap(),
            hash_permits: 2,
            bounds: Bounds { max_staleness: Duration::from_secs(1), outage_grace: Duration::ZERO },
            cache_bytes: 16 << 20,
            last_use_interval: Duration::from_millis(100),
            retention: Retention {
                warnings: vec![Duration::from_hours(24 * 7), Duration::from_hours(24)],
                kept: Duration::from_hours(24 * 400),
                usage_hours: Duration::from_hours(24 * 31),
                usage_days: Duration::from_hours(24 * 400),
                interval: Duration::from_hours(1),
            },
            sampling: Sampling::off(),
            integrations: IntegrationsConfig::default(),
            console_origin: None,
            console_embedders: Vec::new(),
            drain_timeout: Duration::from_secs(10),
        }
    }

    /// Returns the configuration of replicas that warn of expirations, and purge, all the time.
    pub(crate) fn with_frequent_retention(&self) -> ServerConfig {
        let mut config = self.config();
        config.retention.interval = RETENTION_INTERVAL;
        config
    }

    /// Starts a replica and waits until it serves.
    pub(crate) async fn serve(&self, config: ServerConfig) -> Replica {
        let replica = self.launch(config);
        eventually("the replica serves", async || {
            (replica.health(SERVICE).await == ServingStatus::Serving).then_some(())
        })
        .await;
        replica
    }

    /// Starts a replica.
    pub(crate) fn launch(&self, config: ServerConfig) -> Replica {
        let (grpc, http, console) = (listener(), listener(), listener());
        let (address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
        let console_address = console.local_addr().unwrap();
        let (shutdown, stop) = oneshot::channel();
        // Dropping the replica ends it, too.
        let stop = async { stop.await.unwrap_or(()) };
        let (ended, outcome) = oneshot::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(async {
                let http = Some(TcpListener::from_std(http).unwrap());
                let console = Some(TcpListener::from_std(console).unwrap());
                let listeners = Listeners { grpc: TcpListener::from_std(grpc).unwrap(), http, console };
                server::run(config, listeners, stop).await
            });
            // Most tests do not ask how it ended.
            let _ = ended.send(outcome);
        });
        let (installation, http, console) = (self.clone(), http_address, console_address);
        Replica { installation, address, http, console, shutdown, outcome }
    }
}

impl Replica {
    /// Starts a replica of a new installation and waits until it serves.
    pub(crate) async fn start() -> Self {
        let installation = Installation::new().await;
        installation.serve(installation.config()).await
    }

    /// Starts a replica of an installation for many rows and waits until it serves.
    pub(crate) async fn large() -> Self {
        let installation = Installation::large().await;
        installation.serve(installation.config()).await
    }

    /// Returns the replica that the tests of a binary share. For tests of which each uses only the tokens that it
    /// has made: such a test neither lists nor counts, revokes no user's tokens, sets no policy, and reads no metrics.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Replica> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a replica that warns of expirations, and purges, all the time.
    pub(crate) async fn with_frequent_retention() -> Self {
        let installation = Installation::new().await;
        installation.serve(installation.with_frequent_retention()).await
    }

    /// Returns a channel, which connects on first use.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    /// Returns a client that presents this secret.
    pub(crate) fn client(&self, secret: &str) -> Client {
        bearing(self.channel(), &[&format!("Bearer {secret}")])
    }

    /// Returns a client with all rights.
    pub(crate) fn root(&self) -> Client {
        self.client(&self.installation.root_secret)
    }

    /// Returns a client with a new token, in this organization and with these scopes.
    pub(crate) async fn caller(&self, organization_id: &str, scopes: &[&str]) -> Client {
        self.client(&created_with(&mut self.root(), organization_id, scopes).await.secret)
    }

    /// Returns the health of a service; the empty name is the server as a whole.
    pub(crate) async fn health(&self, service: &str) -> ServingStatus {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response = HealthClient::new(self.channel()).check(request).await.unwrap().into_inner();
        match response.status {
            1 => ServingStatus::Serving,
            2 => ServingStatus::NotServing,
            _ => ServingStatus::Unknown,
        }
    }

    /// Asks the replica to shut down.
    pub(crate) fn shut_down(self) -> Ending {
        // An error means that it has ended by itself; the outcome shows that.
        let _ = self.shutdown.send(());
        Ending(self.outcome)
    }

    /// Waits for the replica to end by itself.
    pub(crate) async fn ended(self) -> Result<(), ServeError> {
        let _told_on_return = self.shutdown;
        Ending(self.outcome).outcome().await
    }
}

/// A replica that is ending.
#[derive(Debug)]
pub(crate) struct Ending(oneshot::Receiver<Result<(), ServeError>>);

impl Ending {
    /// Waits for the end and returns what `run` returned.
    pub(crate) async fn outcome(self) -> Result<(), ServeError> {
        in_time("the replica", self.0).await.unwrap()
    }

    /// Returns whether it has ended.
    pub(crate) fn has_come(&self) -> bool {
        !self.0.is_empty() || self.0.is_terminated()
    }
}
