//! The listeners: accept a limited number of connections, do the TLS handshake where TLS is on, and
//! pass them on with what is known of the peer. Called by the server. A slow or hostile handshake
//! delays nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use super::activity::Activity;
use super::keepalive::{Keepalive, PREFACE};
use super::stranger::Stranger;
use super::tls::{Admission, ClientCertificate, Protocol, ServerTls};
use crate::admission::fair_limiter::{FairLimiter, Permit};
use crate::admission::request_memory::RequestLimiter;
use crate::clock;
use crate::metrics::{Counted, Metrics, Task};
use crate::runtime::tasks::Tasks;
use crate::telemetry::is_worth_a_line;

/// How long a handshake may take, and the first bytes of HTTP.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// The most bytes read from a peer before its connection is passed on: the preface of HTTP/2, or
/// less of another protocol.
const FIRST_BYTES: usize = PREFACE.len();

/// The pause after the operating system refused a connection because no file descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many bytes are read and discarded after the last response of a connection, and for how long.
const LINGER: (u64, Duration) = (16 << 20, Duration::from_secs(2));

/// How many accepted connections may wait to be served.
const READY: usize = 64;

/// How many connections beyond the limit a listener for probes accepts: one more ends the oldest of them.
const BEYOND: usize = 16;

/// The limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at once.
    pub most: usize,
    /// How long a connection may be without a call.
    pub idle: Duration,
    /// The maximum age of a connection, a tenth more or less; `None`: unlimited.
    pub age: Option<Duration>,
    /// What happens to those beyond the limit.
    pub beyond: Beyond,
}

/// What happens to connections beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// They wait in the operating system's queue.
    Wait,
    /// A few are accepted for a short time each, for probes.
    Probes,
}

/// The accepted connections.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::Receiver<Connection>,
    _accepting: Tasks,
}

/// One connection. Returns its permits when it ends.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    certificate: Option<Arc<ClientCertificate>>,
    /// Whether the peer has authenticated.
    known: Arc<AtomicBool>,
    bytes: Keepalive<Bytes>,
    /// The admission of its client certificate, if it has one.
    admission: Option<Arc<Admission>>,
    /// The first bytes received, which were not read yet.
    first: axum::body::Bytes,
    /// Its memory accounting while its peer is unauthenticated.
    stranger: Option<Stranger>,
    until: Option<Until>,
    /// When its peer should open another one.
    due: Option<Instant>,
    _place: Option<Permits>,
    _counted: Counted,
}

/// A permit of the listener, and one of the address.
type Permits = (OwnedSemaphorePermit, Permit<IpAddr>);

/// Completes when a connection that was accepted beyond the limit has to end.
pub type Until = oneshot::Receiver<Infallible>;

#[derive(Debug)]
enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts connections on `listener` up to the limits; no address may have nearly all of them.
/// Ends, and closes the listener, when the result is dropped.
pub fn accept(
    listener: TcpListener,
    tls: Option<(Arc<ServerTls>, Protocol)>,
    limits: Limits,
    requests: RequestLimiter,
    metrics: Arc<Metrics>,
) -> Incoming {
    let (sender, receiver) = mpsc::channel(READY);
    let (listener, places) = (Arc::new(listener), Arc::new(Semaphore::new(limits.most)));
    let shares = FairLimiter::lenient(limits.most);
    let mut accepting = Tasks::new(Arc::clone(&metrics));
    let begin = Begin { tls, idle: limits.idle, age: limits.age, requests, metrics };
    accepting.keep(Task::Accept, move || {
        let gate = Acceptor {
            places: Arc::clone(&places),
            shares: shares.clone(),
            beyond: limits.beyond,
            latest: VecDeque::new(),
        };
        accept_all(Arc::clone(&listener), gate, begin.clone(), sender.clone())
    });
    Incoming { receiver, _accepting: accepting }
}

/// Decides which connections are accepted.
struct Acceptor {
    places: Arc<Semaphore>,
    shares: FairLimiter<IpAddr>,
    beyond: Beyond,
    /// The latest connections accepted beyond the limit; each ends when its sender is dropped.
    latest: VecDeque<oneshot::Sender<Infallible>>,
}

impl Acceptor {
    /// Waits until another connection may be accepted.
    async fn open(&self) -> Option<OwnedSemaphorePermit> {
        match self.beyond {
            Beyond::Wait => Arc::clone(&self.places).acquire_owned().await.ok(),
            Beyond::Probes => Arc::clone(&self.places).try_acquire_owned().ok(),
        }
    }

    /// Admits a connection from this address, if the limits allow it.
    fn admit(
        &mut self,
        place: Option<OwnedSemaphorePermit>,
        address: IpAddr,
    ) -> Option<(Option<Permits>, Option<Until>)> {
        if let Some(held) = place.zip(self.shares.take(address.to_canonical()).ok()) {
            return Some((Some(held), None));
        }
        if self.beyond == Beyond::Wait {
            return None;
        }
        let (keep, until) = oneshot::channel();
        self.latest.push_back(keep);
        if self.latest.len() > BEYOND {
            self.latest.pop_front();
        }
        Some((None, Some(until)))
    }
}

async fn accept_all(
    listener: Arc<TcpListener>,
    mut gate: Acceptor,
    how: Begin,
    sender: mpsc::Sender<Connection>,
) {
    loop {
        let place = gate.open().await;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some((place, mut until)) = gate.admit(place, address.ip()) else {
            how.metrics.work.connection_refused();
            tracing::debug!(%address, "a connection of an address that has its share was refused");
            continue;
        };
        let (how, sender) = (how.clone(), sender.clone());
        tokio::spawn(async move {
            let begun = ended_by(until.as_mut(), how.connection(stream, address)).await;
            if let Some(Some(begun)) = begun {
                let counted = Counted::new(how.metrics.work.connections());
                let Begun { address, certificate, bytes, admission, first } = begun;
                let due = how.age.map(|age| Instant::now() + clock::about(age));
                let known = Arc::new(AtomicBool::new(certificate.is_some()));
                let stranger = Stranger::new(how.requests, address.ip(), &first);
                let stranger = Some(stranger).filter(|_| certificate.is_none());
                let connection = Connection {
                    address,
                    certificate,
                    known,
                    bytes,
                    admission,
                    first,
                    stranger,
                    until,
                    due,
                    _place: place,
                    _counted: counted,
                };
                let _ = sender.send(connection).await;
            }
        });
    }
}

/// Runs `work` unless `until` completes first.
pub async fn ended_by<T>(until: Option<&mut Until>, work: impl Future<Output = T>) -> Option<T> {
    let Some(until) = until else { return Some(work.await) };
    tokio::select! {
        done = work => Some(done),
        _ = until => None,
    }
}

/// A connection after its handshake and first bytes.
struct Begun {
    address: SocketAddr,
    certificate: Option<Arc<ClientCertificate>>,
    bytes: Keepalive<Bytes>,
    admission: Option<Arc<Admission>>,
    first: axum::body::Bytes,
}

/// Starts connections.
#[derive(Clone)]
struct Begin {
    tls: Option<(Arc<ServerTls>, Protocol)>,
    idle: Duration,
    age: Option<Duration>,
    requests: RequestLimiter,
    metrics: Arc<Metrics>,
}

impl Begin {
    /// Does the handshake and reads the first bytes; `None` if that failed.
    async fn connection(&self, stream: TcpStream, address: SocketAddr) -> Option<Begun> {
        // Messages are small, and a peer waits for each.
        let _ = stream.set_nodelay(true);
        if self.tls.is_some() {
            // A peer that sends nothing has not failed: load balancers check in this way whether a
            // port is open.
            let spoken = tokio::time::timeout(HANDSHAKE_DEADLINE, stream.peek(&mut [0])).await;
            if !matches!(spoken, Ok(Ok(1..))) {
                tracing::debug!(%address, "a peer that said nothing");
                return None;
            }
        }
        let shaken = tokio::time::timeout(HANDSHAKE_DEADLINE, shake_hands(stream, self.tls.clone())).await;
        let shaken = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let Shaken { mut bytes, certificate, admission } = shaken
            .inspect_err(|error| {
                self.metrics.work.handshake_failed();
                if is_worth_a_line("TLS_HANDSHAKE", Some(address.ip())) {
                    tracing::info!(%address, %error, "TLS handshake failed");
                }
            })
            .ok()?;
        let heard = tokio::time::timeout(HANDSHAKE_DEADLINE, hear(&mut bytes)).await;
        let Ok(Ok(first)) = heard else {
            tracing::debug!(%address, "a peer that said nothing");
            return None;
        };
        let bytes = Keepalive::new(bytes, &first, self.idle);
        Some(Begun { address, certificate, bytes, admission, first: first.into() })
    }
}

/// Reads a peer's first bytes: the whole preface of HTTP/2, or enough to see that it is something else.
async fn hear(bytes: &mut Bytes) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(FIRST_BYTES);
    while first.len() < FIRST_BYTES && PREFACE.starts_with(&first) {
        let missing = FIRST_BYTES - first.len();
        if (&mut *bytes).take(missing as u64).read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first)
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
    /// Waits for the next connection; `None` once nothing is accepted any more.
    pub async fn next(&mut self) -> Option<Connection> {
        self.receiver.recv().await
    }
}

impl Connection {
    /// Returns the peer's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the peer's verified certificate, if any.
    #[must_use]
    pub fn certificate(&self) -> Option<Arc<ClientCertificate>> {
        self.certificate.clone()
    }

    /// Returns the flag that becomes true when the peer has authenticated.
    #[must_use]
    pub fn known(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.known)
    }

    /// Fails once the client's certificate is no longer accepted.
    fn admitted(&self) -> io::Result<()> {
        match &self.admission {
            Some(admission) if admission.is_withdrawn() => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    /// Counts bytes received from an unauthenticated peer.
    fn hear(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stranger) = &mut self.stranger else { return Ok(()) };
        if self.known.load(Ordering::Relaxed) {
            self.stranger = None;
            self.bytes.activity().set_overspent(false);
        } else if stranger.hear(bytes)? {
            self.bytes.activity().set_overspent(true);
        }
        Ok(())
    }

    /// Returns the connection's activity.
    #[must_use]
    pub fn activity(&self) -> Arc<Activity> {
        self.bytes.activity()
    }

    /// Returns when its peer should open another connection, so that added replicas get their share.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Reads and discards what the peer still sends after the last response, for a short time or until it closes: a connection
    /// that is closed with unread data is reset, and the peer may lose the response. Gateways take a reset for an outage.
    pub async fn linger(mut self) {
        // Nothing of it is kept, so nothing is counted.
        self.stranger = None;
        let (mut rest, mut nowhere) = (self.take(LINGER.0), tokio::io::sink());
        let _ = tokio::time::timeout(LINGER.1, tokio::io::copy(&mut rest, &mut nowhere)).await;
    }

    /// Takes the signal that ends it, if it was accepted beyond the limit.
    pub fn until(&mut self) -> Option<Until> {
        self.until.take()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.admitted()?;
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.bytes).poll_read(context, buffer);
        if self.stranger.is_some() {
            self.hear(buffer.filled().get(before..).unwrap_or_default())?;
        }
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
        self.stranger.iter_mut().for_each(Stranger::answered);
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
        self.stranger.iter_mut().for_each(Stranger::answered);
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
