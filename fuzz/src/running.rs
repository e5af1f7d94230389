//! A whole server in this process, on a separate Postgres, for the targets of `calls`. Postgres
//! ends with the process.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokend::api::http::config::IntegrationsConfig;
use tokend::clock;
use tokend::domain::CertificateMappings;
use tokend::jobs::reload::Origins;
use tokend::jobs::retention::Retention;
use tokend::private_postgres::{Cluster, Durability};
use tokend::secret::{DurableCost, Keyring, Prefix};
use tokend::server::{self, Limits, ServerConfig, Timeouts};
use tokend::store::{self, ConnectSettings, Store};
use tokend::telemetry::Sampling;
use tokend::tokens::bootstrap::{Bootstrapped, bootstrap};
use tokend::verify::Bounds;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// The server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) root: SecretString,
    _place: TempDir,
    _cluster: Cluster,
}

/// Returns the server; the first call starts it.
pub(crate) fn running() -> &'static Running {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    RUNNING.get_or_init(start)
}

/// Returns a runtime for one thread.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn start() -> Running {
    let place = tempfile::Builder::new().prefix("tokend-fuzz-").tempdir_in("/tmp").expect("a directory");
    fs::set_permissions(place.path(), Permissions::from_mode(0o711)).expect("permissions");
    let cluster = Cluster::start(place.path(), Durability::Disposable).expect("Postgres");
    let database = sqlx_options(&cluster);
    let key = Keyring::generate_entry(&mut clock::randomness()).expect("randomness");
    let keyring = Arc::new(Keyring::parse(key.expose_secret()).expect("a keyring"));
    let (prefix, cost) = (Prefix::default(), DurableCost::new(64, 1, 1).expect("a cost"));
    let root = runtime().block_on(async {
        store::migrate(&database, &prefix).await.expect("a schema");
        let store = Store::new(database.clone(), 1);
        store.open();
        let made = bootstrap(&store, &keyring, &prefix, cost, |_| Ok(())).await.expect("a root token");
        store.close().await;
        let Bootstrapped::Created(secret) = made else { panic!("there was a root token") };
        secret
    });
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let config = config(database, keyring, prefix, cost);
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            server::run(config, listener, std::future::pending()).await.expect("a server");
        });
    });
    Running { address, root, _place: place, _cluster: cluster }
}

fn sqlx_options(cluster: &Cluster) -> ConnectSettings {
    let socket = cluster.socket_dir().display();
    let url = format!("postgres://{}@localhost/{}?host={socket}", Cluster::ROLE, Cluster::DATABASE);
    ConnectSettings::from(url.parse::<sqlx::postgres::PgConnectOptions>().expect("a URL"))
}

fn config(
    database: ConnectSettings,
    keyring: Arc<Keyring>,
    prefix: Prefix,
    cost: DurableCost,
) -> ServerConfig {
    ServerConfig {
        tls: None,
        certificates: CertificateMappings::default(),
        limits: Limits {
            connections: 64,
            streams: 256,
            calls: 256,
            response_memory_bytes: 64 << 20,
            timeouts: Timeouts::default(),
        },
        database,
        direct_database: None,
        database_connections: 8,
        migrate: false,
        require_fsync: false,
        keyring,
        origins: Origins::default(),
        prefix,
        durable_cost: cost,
        hash_permits: 2,
        bounds: Bounds { max_staleness: Duration::from_secs(1), outage_grace: Duration::ZERO },
        cache_bytes: 4 << 20,
        last_use_interval: Duration::from_secs(30),
        retention: Retention {
            warnings: Vec::new(),
            kept: Duration::from_hours(24 * 400),
            usage_hours: Duration::from_hours(24 * 31),
            usage_days: Duration::from_hours(24 * 400),
            interval: Duration::from_hours(1),
        },
        sampling: Sampling::off(),
        console_origin: None,
        console_embedders: Vec::new(),
        integrations: IntegrationsConfig { ext_authz: true, ..IntegrationsConfig::default() },
        drain_timeout: Duration::from_secs(1),
    }
}
