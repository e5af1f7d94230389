//! `tokend serve`: gRPC on a private Postgres, or as a replica on a shared one. Not asynchronous
//! itself: the code that starts and maintains a private Postgres blocks. The address is bound
//! first, since that fails soonest.

use std::io::{self, IsTerminal as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{env, panic, thread};

use rustix::io::Errno;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::data_dir::DataDir;
use super::database::{forget_session_options, private_settings};
use super::greeting::Greeting;
use super::keep_postgres_running::keep_running;
use super::signals::{self, Shutdown};
use super::{CommandError, open_files};
use crate::api::console::Site;
use crate::config::{Migration, ServeSettings, Storage, read_certificates, read_keyring};
use crate::jobs::reload::Origins;
use crate::private_postgres::{Cluster, Durability};
use crate::secret::{Keyring, LinkCode};
use crate::server::{self, Listeners, ServerConfig};
use crate::store;
use crate::store::{ConnectSettings, Store};
use crate::telemetry::{self, Telemetry};
use crate::tokens::bootstrap::{Bootstrapped, bootstrap};
use crate::tokens::console_link::link_for;
use crate::transport::tls::ServerTls;

/// How long blocking work may continue after the drain; then the process ends without it.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// What serving needs on either kind of database.
struct Service {
    runtime: Runtime,
    listeners: Listeners,
    shutdown: Shutdown,
    hangups: watch::Receiver<u64>,
    tls: Option<Arc<ServerTls>>,
    telemetry: Arc<Telemetry>,
    settings: ServeSettings,
}

pub(super) fn run(mut settings: ServeSettings, storage: Storage) -> Result<(), CommandError> {
    if matches!(storage, Storage::Private { .. }) {
        forget_session_options()?;
    }
    let runtime = Runtime::new().map_err(CommandError::Runtime)?;
    let telemetry = {
        let _within = runtime.enter();
        Arc::new(telemetry::init(
            settings.log.format,
            settings.log.filter.as_str(),
            settings.otlp_endpoint.as_deref(),
        )?)
    };
    let listeners =
        1 + u64::from(settings.http_listen.is_some()) + u64::from(settings.console.listen.is_some());
    open_files::fit(&mut settings.limits, listeners, settings.database_connections);
    let tls = settings.tls.clone().map(ServerTls::load).transpose()?.map(Arc::new);
    let (listeners, shutdown, hangups) = runtime.block_on(prepare(&settings, &telemetry))?;
    let service = Service { runtime, listeners, shutdown, hangups, tls, telemetry, settings };
    match storage {
        Storage::Shared { database, direct, keyring, keyring_file } => {
            service.serve(*database, direct.map(|settings| *settings), keyring, keyring_file)
        }
        Storage::Private { data_dir, keyring, keyring_file } => {
            let data = DataDir::new(data_dir);
            let cluster = Cluster::start(data.path(), Durability::Durable)?;
            let socket_directory = cluster.socket_dir().to_owned();
            thread::scope(|scope| {
                let (serving, until) = mpsc::channel();
                let directory = data.path();
                let keeper = scope.spawn(move || keep_running(cluster, directory, &until));
                let served = service.serve_private(&socket_directory, &data, keyring, keyring_file);
                drop(serving);
                let stopped = keeper.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked));
                served?;
                Ok(stopped?)
            })
        }
    }
}

/// Binds the addresses and installs the signal handlers, before anything slow.
async fn prepare(
    settings: &ServeSettings,
    telemetry: &Arc<Telemetry>,
) -> Result<(Listeners, Shutdown, watch::Receiver<u64>), CommandError> {
    let shutdown = Shutdown::install().map_err(CommandError::Signals)?;
    tokio::spawn(signals::log_levels(Arc::clone(telemetry)).map_err(CommandError::Signals)?);
    tokio::spawn(telemetry::log_left_out());
    let hangups = signals::hangups().map_err(CommandError::Signals)?;
    let grpc = bind(settings.listen).await?;
    let http = match settings.http_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let console = match settings.console.listen {
        Some(address) => bind_console(address).await,
        None => None,
    };
    Ok((Listeners { grpc, http, console }, shutdown, hangups))
}

/// Binds the console's address. Without it the rest is served: it is a convenience, and often on by default.
async fn bind_console(address: SocketAddr) -> Option<TcpListener> {
    let bound = bind(address).await;
    bound
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the console is not served: choose another --console-listen");
        })
        .ok()
}

/// Binds an address; on a system without IPv6, the IPv4 wildcard instead of the IPv6 one.
async fn bind(address: SocketAddr) -> Result<TcpListener, CommandError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(source) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&source) => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::warn!("this system has no IPv6: {instead} replaces {address}");
            Box::pin(bind(instead)).await
        }
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => Err(CommandError::AddressInUse(address)),
        Err(source) => Err(CommandError::Listen { address, source }),
    }
}

/// Returns whether the error is a system's refusal of IPv6: it does not support it, or has no such address.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

impl Service {
    /// Serves until a signal, then gives remaining blocking work a moment.
    fn serve(
        self,
        database: ConnectSettings,
        direct: Option<ConnectSettings>,
        keyring: Keyring,
        keyring_file: Option<PathBuf>,
    ) -> Result<(), CommandError> {
        let origins = self.origins(keyring_file);
        let console_link = self.console_link();
        let settings = self.settings;
        let config = ServerConfig {
            tls: self.tls,
            certificates: settings.certificates,
            limits: settings.limits,
            database,
            direct_database: direct,
            database_connections: settings.database_connections,
            migrate: settings.migration == Migration::AtStart,
            keyring: Arc::new(keyring),
            origins,
            prefix: settings.prefix,
            durable_cost: settings.cost,
            hash_permits: settings.hash_permits,
            bounds: settings.bounds,
            cache_bytes: settings.cache_bytes,
            last_use_interval: settings.last_use_interval,
            require_fsync: settings.require_fsync,
            retention: settings.retention,
            sampling: settings.sampling,
            integrations: settings.integrations,
            console_origin: settings.console.origin,
            console_embedders: settings.console.embedders,
            drain_timeout: settings.drain_timeout,
        };
        let address = self.listeners.grpc.local_addr().unwrap_or(settings.listen);
        tracing::info!("listening on {address}");
        if let Some(Ok(address)) = self.listeners.http.as_ref().map(TcpListener::local_addr) {
            tracing::info!("HTTP on {address}");
        }
        if let Some(link) = console_link {
            tracing::info!("console at {link}");
        }
        let requested = self.shutdown.requested();
        let served = self.runtime.block_on(server::run(config, self.listeners, requested));
        self.telemetry.end();
        self.runtime.shutdown_timeout(LEFTOVER_TIMEOUT);
        Ok(served?)
    }

    /// Prepares the private database, prints the first root secret if it created one, and serves.
    fn serve_private(
        self,
        socket_directory: &Path,
        data: &DataDir,
        keyring: Option<Keyring>,
        keyring_file: Option<PathBuf>,
    ) -> Result<(), CommandError> {
        let (keyring, keyring_file) = match keyring {
            Some(keyring) => (keyring, keyring_file),
            None => (data.keyring()?, Some(data.keyring_path())),
        };
        let database = private_settings(socket_directory);
        let shutdown = self.shutdown.clone();
        let first = self.runtime.block_on(async {
            tokio::select! {
                made = make_first_root(&database, &self, &keyring, data) => made.map(Some),
                () = shutdown.requested() => Ok(None),
            }
        })?;
        match first {
            None => return Ok(()),
            Some(Some((secret, code))) => self.greet(&secret, code.as_ref(), data),
            Some(None) => {}
        }
        self.serve(database, None, keyring, keyring_file)
    }

    /// Returns how to read again the files that may be replaced.
    fn origins(&self, keyring_file: Option<PathBuf>) -> Origins {
        let certificates = self.settings.config_file.clone().filter(|_| {
            // Without a CA no certificate is read, and mappings are refused.
            self.settings.tls.as_ref().is_some_and(|files| files.client_ca.is_some())
        });
        Origins {
            keyring: keyring_file.map(|path| -> Arc<dyn Fn() -> _ + Send + Sync> {
                Arc::new(move || Ok(read_keyring(&path)?))
            }),
            certificates: certificates.map(|path| -> Arc<dyn Fn() -> _ + Send + Sync> {
                Arc::new(move || Ok(read_certificates(&path)?))
            }),
            hangups: Some(self.hangups.clone()),
        }
    }

    /// Returns the address of the console, if it is served.
    fn console_link(&self) -> Option<String> {
        let address = self.listeners.console.as_ref()?.local_addr().ok()?;
        let origin = self.settings.console.origin.as_ref();
        Some(Site::new(origin, self.tls.is_some(), address.port()).link())
    }

    /// Prints the greeting. Nothing is lost if it is not read: the secret is in its file.
    fn greet(&self, secret: &SecretString, code: Option<&LinkCode>, data: &DataDir) {
        let greeting = Greeting {
            program: &program(),
            address: self.listeners.grpc.local_addr().unwrap_or(self.settings.listen),
            encrypted: self.tls.is_some(),
            secret: io::stdout().is_terminal().then_some(secret),
            secret_path: &data.root_secret_path(),
            console: self.console_link(),
            code,
        };
        if let Err(error) = greeting.write(&mut io::stdout().lock()) {
            let path = greeting.secret_path.display();
            tracing::warn!(%error, "the first root secret is in {path}; how to use it could not be printed");
        }
    }
}

/// Migrates, and creates the first root token unless an active one exists; also a link to the console, if a person
/// reads the output.
async fn make_first_root(
    database: &ConnectSettings,
    service: &Service,
    keyring: &Keyring,
    data: &DataDir,
) -> Result<Option<(SecretString, Option<LinkCode>)>, CommandError> {
    let settings = &service.settings;
    store::migrate(database, &settings.prefix).await?;
    let store = Store::new(database.clone(), 1);
    store.open();
    let made =
        bootstrap(&store, keyring, &settings.prefix, settings.cost, |secret| data.keep_root_secret(secret))
            .await;
    let made = match made {
        Ok(Bootstrapped::Created(secret)) => {
            let linked = service.listeners.console.is_some() && io::stdout().is_terminal();
            // Without it, the secret signs in.
            let link = if linked { link_for(&store, &secret, &settings.prefix).await.ok() } else { None };
            Ok(Some((secret, link.map(|link| link.code))))
        }
        Ok(Bootstrapped::Exists) => Ok(None),
        Err(error) => Err(CommandError::Bootstrap(error)),
    };
    store.close().await;
    made
}

/// Returns how to call this program again: by its path, unless it was found by its name.
fn program() -> String {
    let name = env::args().next().unwrap_or_default();
    if !name.contains('/') {
        return "tokend".to_owned();
    }
    env::current_exe().map_or(name, |path| path.to_string_lossy().into_owned())
}
