//! A way to Postgres that a test can shut: a TCP port of its own in front of the cluster's socket, which
//! forwards, refuses, cuts, or holds every byte back.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokend::embedded::Cluster;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::cluster::cluster;

/// What becomes of connections, those that exist and those that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Bytes go both ways.
    Open,
    /// Existing connections are cut, new ones closed at once.
    Cut,
    /// Connections stay, and no byte moves: a server that has gone silent. They end when this does.
    Held,
}

/// The proxy. Ends with the runtime of its test.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
}

impl Proxy {
    /// Opens a port.
    pub(crate) async fn start(way: Way) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(way));
        let socket = cluster().socket_dir().join(format!(".s.PGSQL.{}", Cluster::PORT));
        let ways = Arc::clone(&way);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, socket.clone(), ways.subscribe()));
            }
        });
        Self { address, way }
    }

    /// Changes what becomes of connections.
    pub(crate) fn turn(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Leads what was to connect to the cluster through the proxy.
    pub(crate) fn lead(&self, options: &PgConnectOptions) -> PgConnectOptions {
        // Made anew: with a socket in place, `host` would not count.
        let database = options.get_database().expect("a database").to_owned();
        PgConnectOptions::new_without_pgpass()
            .host(&self.address.ip().to_string())
            .port(self.address.port())
            .username(Cluster::ROLE)
            .database(&database)
            .ssl_mode(PgSslMode::Disable)
    }
}

async fn forward(mut client: TcpStream, socket: PathBuf, mut ways: watch::Receiver<Way>) {
    if *ways.borrow_and_update() == Way::Cut {
        return;
    }
    let Ok(mut server) = UnixStream::connect(socket).await else { return };
    let opened = *ways.borrow_and_update() == Way::Open;
    if opened {
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = ways.changed() => {}
        }
    }
    // The copy may have lost bytes that it had read: what was held is never opened again, but cut.
    let _ = ways.wait_for(|way| *way != Way::Held).await;
}
