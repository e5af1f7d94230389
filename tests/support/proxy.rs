//! A TCP proxy in front of a Postgres or tokend that a test controls: it forwards, delays, refuses,
//! cuts, holds bytes back for a while or discards them, and can be redirected to another server.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokend::private_postgres::Cluster;
use tokend::store::ConnectSettings;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::cluster::cluster;

/// What happens to connections, both existing and new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Bytes are forwarded in both directions.
    Open,
    /// Bytes are forwarded in both directions, each read after this delay.
    Slow(Duration),
    /// Existing connections are cut, new ones closed at once.
    Cut,
    /// Connections stay open, but no byte is forwarded, as with a silent server. Held bytes are
    /// forwarded afterwards.
    Stalled,
}

#[derive(Debug, Clone)]
struct Control {
    state: LinkState,
    /// How often everything was cut, and discarded; each change ends the connections that began before it.
    cuts: u32,
    losses: u32,
    server: Server,
    /// How many bytes were held back so far.
    held: Arc<AtomicUsize>,
}

/// The target of a proxy.
#[derive(Debug, Clone)]
enum Server {
    Socket(PathBuf),
    Port(SocketAddr),
    /// Round-robin: each new connection goes to the next address.
    RoundRobin(Vec<SocketAddr>, Arc<AtomicUsize>),
}

/// The proxy. Ends with the runtime of its test.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    control: Arc<watch::Sender<Control>>,
}

impl Proxy {
    /// Opens a port that forwards to the cluster.
    pub(crate) async fn start(state: LinkState) -> Self {
        Self::to(cluster().socket_dir(), state).await
    }

    /// Opens a port that forwards to a server's port.
    pub(crate) async fn to_port(address: SocketAddr, state: LinkState) -> Self {
        Self::open(Server::Port(address), state).await
    }

    /// Opens a port that forwards to the server whose socket is in this directory.
    pub(crate) async fn to(socket_dir: &Path, state: LinkState) -> Self {
        Self::open(socket(socket_dir), state).await
    }

    async fn open(server: Server, state: LinkState) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Control { state, cuts: 0, losses: 0, server, held: Arc::default() };
        let control = Arc::new(watch::Sender::new(control));
        let controls = Arc::clone(&control);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, controls.subscribe()));
            }
        });
        Self { address, control }
    }

    /// Changes what happens to connections.
    pub(crate) fn set(&self, state: LinkState) {
        self.control.send_modify(|control| control.state = state);
    }

    /// Cuts the existing connections.
    pub(crate) fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }

    /// Discards what existing connections still send, without closing them, like a network that has
    /// lost their state.
    pub(crate) fn lose(&self) {
        self.control.send_modify(|control| control.losses += 1);
    }

    /// Sends new connections to another server, and cuts the existing ones.
    pub(crate) fn lead_to(&self, socket_dir: &Path) {
        self.control.send_modify(|control| {
            control.server = socket(socket_dir);
            control.cuts += 1;
        });
    }

    /// Sends new connections to these ports in turn, and does not affect existing ones.
    pub(crate) fn round_robin(&self, addresses: &[SocketAddr]) {
        self.control
            .send_modify(|control| control.server = Server::RoundRobin(addresses.to_vec(), Arc::default()));
    }

    /// Sends new connections to another server's port, and cuts the existing ones.
    pub(crate) fn lead_to_port(&self, address: SocketAddr) {
        self.control.send_modify(|control| {
            control.server = Server::Port(address);
            control.cuts += 1;
        });
    }

    /// Returns how many bytes it has held back so far.
    pub(crate) fn held_bytes(&self) -> usize {
        self.control.borrow().held.load(Ordering::Relaxed)
    }

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns settings to reach the same database through the proxy.
    pub(crate) fn lead(&self, settings: &ConnectSettings) -> ConnectSettings {
        // Built from new options: if a socket is set, `host` is ignored.
        let database = settings.options.get_database().expect("a database").to_owned();
        PgConnectOptions::new_without_pgpass()
            .host(&self.address.ip().to_string())
            .port(self.address.port())
            .username(Cluster::ROLE)
            .database(&database)
            .ssl_mode(PgSslMode::Disable)
            .into()
    }

    /// Returns the URL of this database behind the proxy.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{}@{}/{database}?sslmode=disable", Cluster::ROLE, self.address)
    }
}

fn socket(directory: &Path) -> Server {
    Server::Socket(directory.join(format!(".s.PGSQL.{}", Cluster::PORT)))
}

async fn forward(client: TcpStream, mut controls: watch::Receiver<Control>) {
    let control = controls.borrow_and_update().clone();
    match &control.server {
        _ if control.state == LinkState::Cut => {}
        Server::Socket(path) => {
            let Ok(server) = UnixStream::connect(path).await else { return };
            relay(client, server, controls, control).await;
        }
        Server::Port(address) => {
            let Ok(server) = TcpStream::connect(address).await else { return };
            relay(client, server, controls, control).await;
        }
        Server::RoundRobin(addresses, next) => {
            let address = addresses[next.fetch_add(1, Ordering::Relaxed) % addresses.len()];
            let Ok(server) = TcpStream::connect(address).await else { return };
            relay(client, server, controls, control).await;
        }
    }
}

async fn relay(
    mut client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    mut controls: watch::Receiver<Control>,
    begun: Control,
) {
    let Control { cuts, losses, .. } = begun;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let mut lost = controls.clone();
    tokio::select! {
        () = carry(&mut from_client, &mut to_server, controls.clone()) => {}
        () = carry(&mut from_server, &mut to_client, controls.clone()) => {}
        () = come(&mut controls, |control| control.state == LinkState::Cut || control.cuts != cuts) => {}
        () = come(&mut lost, |control| control.losses != losses) => pending().await,
    }
}

async fn come(controls: &mut watch::Receiver<Control>, what: impl FnMut(&Control) -> bool) {
    // An error means that the proxy has ended, and with it what it forwards.
    let _ = controls.wait_for(what).await;
}

async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut controls: watch::Receiver<Control>,
) {
    let mut bytes = vec![0; 65_536];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        let mut is_counted = false;
        loop {
            let state = controls.borrow_and_update().state;
            match state {
                LinkState::Open => break,
                LinkState::Slow(delay) => {
                    tokio::time::sleep(delay).await;
                    break;
                }
                LinkState::Cut | LinkState::Stalled => {
                    if !is_counted {
                        controls.borrow().held.fetch_add(count, Ordering::Relaxed);
                        is_counted = true;
                    }
                    if controls.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
