//! What comes before HTTP on a connection: the TLS handshake where TLS is on, and the first bytes. Called by the listeners.
//! A slow or hostile handshake delays nothing else, and what it makes the server buffer is counted.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::connection::Opened;
use super::keepalive::{Keepalive, PREFACE};
use super::socket::{Socket, TlsInput};
use super::tls::{Admission, ClientCertificate, Protocol, ServerTls};
use super::unauthenticated::ConnectionMemory;
use crate::admission::request_memory::RequestLimiter;
use crate::metrics::Metrics;
use crate::telemetry::should_log;

/// How long a handshake may take, and the first bytes of HTTP.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// The most bytes read from a peer before its connection is passed on: the preface of HTTP/2, or
/// less of another protocol.
const FIRST_BYTES: usize = PREFACE.len();

/// Begins connections.
#[derive(Clone)]
pub(super) struct Handshake {
    pub(super) tls: Option<(Arc<ServerTls>, Protocol)>,
    pub(super) idle: Duration,
    pub(super) requests: RequestLimiter,
    pub(super) metrics: Arc<Metrics>,
}

impl Handshake {
    /// Does the handshake and reads the first bytes; `None` if that failed.
    pub(super) async fn open(&self, stream: TcpStream, address: SocketAddr) -> Option<Opened> {
        // Messages are small, and a peer waits for each.
        let _ = stream.set_nodelay(true);
        if self.tls.is_some() {
            // A peer that sends nothing has not failed: load balancers check in this way whether a
            // port is open.
            let spoken = tokio::time::timeout(HANDSHAKE_DEADLINE, stream.peek(&mut [0])).await;
            if !matches!(spoken, Ok(Ok(1..))) {
                tracing::debug!(%address, "a peer sent nothing");
                return None;
            }
        }
        let mut memory = ConnectionMemory::new(self.requests.clone(), address.ip());
        let shaking = shake_hands(stream, self.tls.clone(), &mut memory);
        let completed = tokio::time::timeout(HANDSHAKE_DEADLINE, shaking).await;
        let completed = completed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let HandshakeResult { mut socket, certificate, admission } = completed
            .inspect_err(|error| {
                self.metrics.work.handshake_failed();
                if should_log("TLS_HANDSHAKE", Some(address.ip())) {
                    tracing::info!(%address, %error, "TLS handshake failed");
                }
            })
            .ok()?;
        let receiving = first_bytes(&mut socket, &mut memory);
        let Ok(Ok(first)) = tokio::time::timeout(HANDSHAKE_DEADLINE, receiving).await else {
            tracing::debug!(%address, "a peer sent nothing");
            return None;
        };
        memory.begin_http(&first);
        let memory = Some(memory).filter(|_| certificate.is_none());
        let socket = Keepalive::new(socket, &first, self.idle);
        Some(Opened { address, certificate, admission, socket, first: first.into(), memory })
    }
}

/// Reads a peer's first bytes: the whole preface of HTTP/2, or enough to see that it is something else.
async fn first_bytes(socket: &mut Socket, memory: &mut ConnectionMemory) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(FIRST_BYTES);
    while first.len() < FIRST_BYTES && PREFACE.starts_with(&first) {
        let mut bytes = [0; FIRST_BYTES];
        let missing = bytes.get_mut(first.len()..).unwrap_or_default();
        let mut buffer = ReadBuf::new(missing);
        poll_fn(|context| match Pin::new(&mut *socket).poll_read(context, &mut buffer) {
            Poll::Pending => {
                memory.wait(context, socket.taken())?;
                Poll::Pending
            }
            read @ Poll::Ready(_) => read,
        })
        .await?;
        if buffer.filled().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        first.extend_from_slice(buffer.filled());
    }
    Ok(first)
}

/// A connection after its handshake.
struct HandshakeResult {
    socket: Socket,
    certificate: Option<Arc<ClientCertificate>>,
    admission: Option<Arc<Admission>>,
}

async fn shake_hands(
    stream: TcpStream,
    tls: Option<(Arc<ServerTls>, Protocol)>,
    memory: &mut ConnectionMemory,
) -> io::Result<HandshakeResult> {
    let Some((tls, protocol)) = tls else {
        return Ok(HandshakeResult { socket: Socket::Plain(stream), certificate: None, admission: None });
    };
    let config = tls.config(protocol);
    let mut accepting = TlsAcceptor::from(Arc::clone(&config)).accept(TlsInput::new(stream));
    let stream = poll_fn(|context| {
        let accepted = Pin::new(&mut accepting).poll(context);
        if let Some(input) = accepting.get_mut().filter(|_| accepted.is_pending()) {
            memory.wait(context, input.taken())?;
        }
        accepted
    })
    .await?;
    let (mut certificate, mut admission) = (None, None);
    if let Some(chain @ [own, ..]) = stream.get_ref().1.peer_certificates() {
        let parsed = ClientCertificate::parse(own);
        let parsed = parsed.ok_or_else(|| io::Error::other("the client certificate cannot be read"))?;
        certificate = Some(Arc::new(parsed));
        admission = Some(tls.admit(chain, protocol, &config));
    }
    Ok(HandshakeResult { socket: Socket::tls(stream), certificate, admission })
}
