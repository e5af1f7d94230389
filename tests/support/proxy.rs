//! A way to Postgres, or to tokend, that a test can shut: a TCP port of its own in front of a server's socket or
//! port, which forwards, delays, refuses, cuts, holds every byte back for a while or swallows it for good. It can be
//! led to another server.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokend::embedded::Cluster;
use tokend::store::Route;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::cluster::cluster;

/// What becomes of connections, those that exist and those that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Bytes go both ways.
    Open,
    /// Bytes go both ways, each read of them this much later.
    Slow(Duration),
    /// Existing connections are cut, new ones closed at once.
    Cut,
    /// Connections stay, and no byte moves: a server that has gone silent. What was held goes on afterwards.
    Held,
}

#[derive(Debug, Clone)]
struct Course {
    way: Way,
    /// How often everything was cut, and swallowed; that ends each connection that began before.
    cuts: u32,
    losses: u32,
    server: Server,
}

/// Where a proxy leads.
#[derive(Debug, Clone)]
enum Server {
    Socket(PathBuf),
    Port(SocketAddr),
    /// One after the other, each new connection the next.
    Turns(Vec<SocketAddr>, Arc<AtomicUsize>),
}

/// The proxy. Ends with the runtime of its test.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    course: Arc<watch::Sender<Course>>,
}

impl Proxy {
    /// Opens a port that leads to the cluster.
    pub(crate) async fn start(way: Way) -> Self {
        Self::to(cluster().socket_dir(), way).await
    }

    /// Opens a port that leads to a server's port.
    pub(crate) async fn to_port(address: SocketAddr, way: Way) -> Self {
        Self::open(Server::Port(address), way).await
    }

    /// Opens a port that leads to the server whose socket is in this directory.
    pub(crate) async fn to(socket_dir: &Path, way: Way) -> Self {
        Self::open(socket(socket_dir), way).await
    }

    async fn open(server: Server, way: Way) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let course = Course { way, cuts: 0, losses: 0, server };
        let course = Arc::new(watch::Sender::new(course));
        let courses = Arc::clone(&course);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, courses.subscribe()));
            }
        });
        Self { address, course }
    }

    /// Changes what becomes of connections.
    pub(crate) fn turn(&self, way: Way) {
        self.course.send_modify(|course| course.way = way);
    }

    /// Cuts the connections that exist.
    pub(crate) fn cut(&self) {
        self.course.send_modify(|course| course.cuts += 1);
    }

    /// Swallows what the connections that exist still say, without closing them: a network that has
    /// forgotten them.
    pub(crate) fn lose(&self) {
        self.course.send_modify(|course| course.losses += 1);
    }

    /// Leads new connections to another server, and cuts those that exist.
    pub(crate) fn lead_to(&self, socket_dir: &Path) {
        self.course.send_modify(|course| {
            course.server = socket(socket_dir);
            course.cuts += 1;
        });
    }

    /// Leads new connections to these ports in turn, and leaves those that exist alone.
    pub(crate) fn take_turns(&self, addresses: &[SocketAddr]) {
        self.course.send_modify(|course| course.server = Server::Turns(addresses.to_vec(), Arc::default()));
    }

    /// Leads new connections to another server's port, and cuts those that exist.
    pub(crate) fn lead_to_port(&self, address: SocketAddr) {
        self.course.send_modify(|course| {
            course.server = Server::Port(address);
            course.cuts += 1;
        });
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads what was to connect to the server through the proxy.
    pub(crate) fn lead(&self, route: &Route) -> Route {
        // Made anew: with a socket in place, `host` would not count.
        let database = route.options.get_database().expect("a database").to_owned();
        PgConnectOptions::new_without_pgpass()
            .host(&self.address.ip().to_string())
            .port(self.address.port())
            .username(Cluster::ROLE)
            .database(&database)
            .ssl_mode(PgSslMode::Disable)
            .into()
    }

    /// Returns the URL of a database of that name behind the proxy.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{}@{}/{database}?sslmode=disable", Cluster::ROLE, self.address)
    }
}

fn socket(directory: &Path) -> Server {
    Server::Socket(directory.join(format!(".s.PGSQL.{}", Cluster::PORT)))
}

async fn forward(client: TcpStream, mut courses: watch::Receiver<Course>) {
    let course = courses.borrow_and_update().clone();
    match &course.server {
        _ if course.way == Way::Cut => {}
        Server::Socket(path) => {
            let Ok(server) = UnixStream::connect(path).await else { return };
            relay(client, server, courses, course).await;
        }
        Server::Port(address) => {
            let Ok(server) = TcpStream::connect(address).await else { return };
            relay(client, server, courses, course).await;
        }
        Server::Turns(addresses, turn) => {
            let address = addresses[turn.fetch_add(1, Ordering::Relaxed) % addresses.len()];
            let Ok(server) = TcpStream::connect(address).await else { return };
            relay(client, server, courses, course).await;
        }
    }
}

async fn relay(
    mut client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    mut courses: watch::Receiver<Course>,
    begun: Course,
) {
    let Course { cuts, losses, .. } = begun;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let mut lost = courses.clone();
    tokio::select! {
        () = carry(&mut from_client, &mut to_server, courses.clone()) => {}
        () = carry(&mut from_server, &mut to_client, courses.clone()) => {}
        () = come(&mut courses, |course| course.way == Way::Cut || course.cuts != cuts) => {}
        () = come(&mut lost, |course| course.losses != losses) => pending().await,
    }
}

async fn come(courses: &mut watch::Receiver<Course>, what: impl FnMut(&Course) -> bool) {
    // An error is the end of the proxy, and of what leads through it.
    let _ = courses.wait_for(what).await;
}

async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut courses: watch::Receiver<Course>,
) {
    let mut bytes = vec![0; 65_536];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        loop {
            let way = courses.borrow_and_update().way;
            match way {
                Way::Open => break,
                Way::Slow(delay) => {
                    tokio::time::sleep(delay).await;
                    break;
                }
                Way::Cut | Way::Held => {
                    if courses.changed().await.is_err() {
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
