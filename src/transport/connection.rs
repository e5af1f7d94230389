//! One connection, with what is known of its peer: the bytes that HTTP reads and writes. While the peer is unauthenticated
//! its memory is counted. Created by the listeners, served by the API.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::activity::Activity;
use super::keepalive::Keepalive;
use super::socket::Socket;
use super::tls::{Admission, ClientCertificate};
use super::unauthenticated::{ConnectionMemory, READ_BYTES};
use crate::admission::fair_limiter::Permit;
use crate::domain::PeerNetwork;
use crate::metrics::Counted;

/// How many bytes are read and discarded after the last response of a connection, and for how long.
const LINGER_LIMITS: (u64, Duration) = (16 << 20, Duration::from_secs(2));

/// One connection. Returns its permits when it ends.
#[derive(Debug)]
pub struct Connection {
    opened: Opened,
    /// Whether the peer has authenticated.
    authenticated: Arc<AtomicBool>,
    cutoff: Option<Cutoff>,
    /// When its peer should open another one.
    due: Option<Instant>,
    _permits: Option<Permits>,
    _counted: Counted,
}

/// A connection after its handshake and its first bytes.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) address: SocketAddr,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// The admission of the certificate.
    pub(super) admission: Option<Arc<Admission>>,
    pub(super) socket: Keepalive<Socket>,
    /// The first bytes received, which were not read yet.
    pub(super) first: Bytes,
    /// Its memory accounting while its peer is unauthenticated.
    pub(super) memory: Option<ConnectionMemory>,
}

/// A permit of the listener, and one of the address.
pub(super) type Permits = (OwnedSemaphorePermit, Permit<PeerNetwork>);

/// Completes when a connection that was accepted beyond the limit has to end.
pub type Cutoff = oneshot::Receiver<Infallible>;

/// Runs `work` unless `cutoff` completes first.
pub async fn ended_by<T>(cutoff: Option<&mut Cutoff>, work: impl Future<Output = T>) -> Option<T> {
    let Some(cutoff) = cutoff else { return Some(work.await) };
    tokio::select! {
        done = work => Some(done),
        _ = cutoff => None,
    }
}

impl Connection {
    /// Starts a connection.
    pub(super) fn new(
        opened: Opened,
        cutoff: Option<Cutoff>,
        due: Option<Instant>,
        permits: Option<Permits>,
        counted: Counted,
    ) -> Self {
        let authenticated = Arc::new(AtomicBool::new(opened.certificate.is_some()));
        Self { opened, authenticated, cutoff, due, _permits: permits, _counted: counted }
    }

    /// Returns the peer's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.opened.address
    }

    /// Returns the peer's verified certificate, if any.
    #[must_use]
    pub fn certificate(&self) -> Option<Arc<ClientCertificate>> {
        self.opened.certificate.clone()
    }

    /// Returns the flag that becomes true when the peer has authenticated.
    #[must_use]
    pub fn authenticated(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.authenticated)
    }

    /// Fails once the client's certificate is no longer accepted, or the connection is evicted.
    fn admitted(&self) -> io::Result<()> {
        match (&self.opened.admission, &self.opened.memory) {
            (Some(admission), _) if admission.is_withdrawn() => Err(io::ErrorKind::ConnectionAborted.into()),
            (_, Some(memory)) if !self.authenticated.load(Ordering::Relaxed) => memory.may_stay(),
            _ => Ok(()),
        }
    }

    /// Reads from an unauthenticated peer, and counts the bytes; `None`: the peer has authenticated.
    fn read_unauthenticated(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Option<Poll<io::Result<()>>> {
        let Opened { memory, socket, .. } = &mut self.opened;
        let counting = memory.as_mut()?;
        if self.authenticated.load(Ordering::Relaxed) {
            *memory = None;
            socket.activity().set_overspent(false);
            return None;
        }
        if counting.must_yield(context) {
            return Some(Poll::Pending);
        }
        if counting.must_pause(context) {
            socket.activity().pause();
            return Some(Poll::Pending);
        }
        let before = buffer.filled().len();
        let mut piece = [0; READ_BYTES];
        let mut piece = ReadBuf::new(piece.get_mut(..buffer.remaining().min(READ_BYTES)).unwrap_or_default());
        let read = Pin::new(&mut *socket).poll_read(context, &mut piece);
        buffer.put_slice(piece.filled());
        let counted = if read.is_pending() {
            counting.wait(context, socket.stream().taken())
        } else {
            counting.receive(buffer.filled().get(before..).unwrap_or_default())
        };
        if counting.is_overspent() {
            socket.activity().set_overspent(true);
        }
        Some(counted.map_or_else(|error| Poll::Ready(Err(error)), |()| read))
    }

    /// Returns the connection's activity.
    #[must_use]
    pub fn activity(&self) -> Arc<Activity> {
        self.opened.socket.activity()
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
        self.opened.memory = None;
        let (mut rest, mut nowhere) = (self.take(LINGER_LIMITS.0), tokio::io::sink());
        let _ = tokio::time::timeout(LINGER_LIMITS.1, tokio::io::copy(&mut rest, &mut nowhere)).await;
    }

    /// Takes the signal that ends it, if it was accepted beyond the limit.
    pub fn cutoff(&mut self) -> Option<Cutoff> {
        self.cutoff.take()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.admitted()?;
        if !self.opened.first.is_empty() {
            let length = self.opened.first.len().min(buffer.remaining());
            buffer.put_slice(&self.opened.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        if let Some(read) = self.read_unauthenticated(context, buffer) {
            return read;
        }
        let read = Pin::new(&mut self.opened.socket).poll_read(context, buffer);
        if read.is_pending()
            && let Some(admission) = &self.opened.admission
        {
            admission.wake(context);
            self.admitted()?;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.admitted()?;
        self.opened.memory.iter_mut().for_each(ConnectionMemory::answered);
        Pin::new(&mut self.opened.socket).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.opened.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.opened.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.admitted()?;
        self.opened.memory.iter_mut().for_each(ConnectionMemory::answered);
        Pin::new(&mut self.opened.socket).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.opened.socket.is_write_vectored()
    }
}
