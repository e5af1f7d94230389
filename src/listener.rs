//! The listeners: take connections, at most so many at a time, shake hands where TLS is on, and hand
//! them on together with what is known of the peer. Called by the server. A slow or hostile handshake
//! holds up nobody else.

mod keepalive;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::keepalive::Keepalive;
use crate::metrics::{Counted, Metrics};
use crate::tls::{Admission, ClientCertificate, Protocol, ServerTls};
use crate::verify::Proven;

/// How long a handshake may take, and what is heard first of HTTP.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// What must have been heard of a peer before its connection is handed on: HTTP/2 begins with as much, and no
/// request of HTTP/1 has less. Whoever says nothing would keep a place for ever, for nothing below waits less.
const FIRST_BYTES: usize = 24;

/// How long is waited after the operating system refused a connection, for want of file descriptors for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections may wait to be taken.
const READY: usize = 64;

/// What is known of whoever is at the other end; in every request's extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it has proven to hold, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// The credential that it has proven last, if any.
    pub proven: Arc<Proven>,
}

/// The connections as they come.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::Receiver<Connection>,
    address: SocketAddr,
}

/// One connection. Gives its place back when it ends.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    bytes: Keepalive<Bytes>,
    /// What lets it in, where that is a client certificate.
    admission: Option<Arc<Admission>>,
    /// What was heard first, and has not been read.
    first: io::Cursor<[u8; FIRST_BYTES]>,
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

#[derive(Debug)]
enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Takes connections on `listener`, at most `most` at a time; more of them wait in the operating system's
/// queue. Ends when the result is dropped.
///
/// # Errors
/// The listener has no address.
pub fn accept(
    listener: TcpListener,
    tls: Option<(Arc<ServerTls>, Protocol)>,
    most: usize,
    metrics: Arc<Metrics>,
) -> io::Result<Incoming> {
    let address = listener.local_addr()?;
    let (sender, receiver) = mpsc::channel(READY);
    let places = Arc::new(Semaphore::new(most));
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = accept_all(listener, tls, places, &sender, metrics) => {}
        }
    });
    Ok(Incoming { receiver, address })
}

async fn accept_all(
    listener: TcpListener,
    tls: Option<(Arc<ServerTls>, Protocol)>,
    places: Arc<Semaphore>,
    sender: &mpsc::Sender<Connection>,
    metrics: Arc<Metrics>,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small messages, each of which somebody waits for.
        let _ = stream.set_nodelay(true);
        let (tls, sender, metrics) = (tls.clone(), sender.clone(), Arc::clone(&metrics));
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, shake_hands(stream, tls)).await;
            let Shaken { mut bytes, certificate, admission } =
                match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(shaken) => shaken,
                    Err(error) => {
                        metrics.work.handshake_failed();
                        tracing::info!(%address, %error, "TLS handshake failed");
                        return;
                    }
                };
            let mut first = [0; FIRST_BYTES];
            let heard = tokio::time::timeout(HANDSHAKE_DEADLINE, bytes.read_exact(&mut first)).await;
            if !matches!(heard, Ok(Ok(_))) {
                tracing::debug!(%address, "a peer that said nothing");
                return;
            }
            let peer = Peer { address, certificate, proven: Arc::default() };
            let counted = Counted::new(metrics.work.connections());
            let bytes = Keepalive::new(bytes, &first);
            let first = io::Cursor::new(first);
            let connection = Connection { peer, bytes, admission, first, _place: place, _counted: counted };
            let _ = sender.send(connection).await;
        });
    }
}

/// A connection after its handshake.
struct Shaken {
    bytes: Bytes,
    certificate: Option<Arc<ClientCertificate>>,
    admission: Option<Arc<Admission>>,
}

async fn shake_hands(stream: TcpStream, tls: Option<(Arc<ServerTls>, Protocol)>) -> io::Result<Shaken> {
    let Some((tls, protocol)) = tls else {
        return Ok(Shaken { bytes: Bytes::Plain(stream), certificate: None, admission: None });
    };
    let config = tls.config(protocol);
    let stream = TlsAcceptor::from(Arc::clone(&config)).accept(stream).await?;
    let (mut certificate, mut admission) = (None, None);
    if let Some(chain @ [own, ..]) = stream.get_ref().1.peer_certificates() {
        let parsed = ClientCertificate::parse(own);
        let parsed = parsed.ok_or_else(|| io::Error::other("the client certificate cannot be read"))?;
        certificate = Some(Arc::new(parsed));
        admission = Some(tls.admit(chain, protocol, &config));
    }
    Ok(Shaken { bytes: Bytes::Tls(Box::new(stream)), certificate, admission })
}

impl Incoming {
    /// Waits for the next connection; none comes when nothing accepts any more.
    pub async fn next(&mut self) -> Option<Connection> {
        self.receiver.recv().await
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.next().await {
            Some(connection) => {
                let address = connection.peer.address;
                (connection, address)
            }
            // The task that accepts ends after its receiver, so only with the runtime.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connection {
    /// Tells who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// Fails once the client's certificate is not accepted any more.
    fn admitted(&self) -> io::Result<()> {
        match &self.admission {
            Some(admission) if admission.is_withdrawn() => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        stream.io().peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.admitted()?;
        if self.first.position() < FIRST_BYTES as u64 {
            return Pin::new(&mut self.first).poll_read(context, buffer);
        }
        let read = Pin::new(&mut self.bytes).poll_read(context, buffer);
        if read.is_pending()
            && let Some(admission) = &self.admission
        {
            admission.wake(context);
            self.admitted()?;
        }
        read
    }
}

impl AsyncRead for Bytes {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.admitted()?;
        Pin::new(&mut self.bytes).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.admitted()?;
        Pin::new(&mut self.bytes).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }
}

impl AsyncWrite for Bytes {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, buffer),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
