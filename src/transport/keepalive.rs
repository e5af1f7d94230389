//! Pings HTTP/2 peers that have been silent, and drops those that do not respond: an unused
//! connection would keep its permit forever. Sits below HTTP and above TLS, and writes its PING
//! frame (RFC 9113, 6.7) between other frames; hyper's own pings read a clock under a lock several
//! times a call. Also ends idle connections, and HTTP/1 peers that do not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::activity::Activity;

/// The interval of the checks.
const INTERVAL: Duration = Duration::from_secs(30);

/// How long a response to a PING may take.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The start of an HTTP/2 connection (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A PING frame: 8 bytes, type 6, no flags, stream 0, and the opaque data that the response repeats.
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0tokend??";

/// A stream whose peer is pinged.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that was seen or not, by itself")]
pub(crate) struct Keepalive<S> {
    stream: S,
    /// When the next check is due.
    look: Pin<Box<Sleep>>,
    interval: Duration,
    /// Whether the peer can be pinged.
    asks: bool,
    activity: Arc<Activity>,
    /// The last check at which there was a call, and how long the connection may be without one.
    unused_since: Instant,
    longest_idle: Duration,
    /// Whether a write succeeded since the last check.
    taken: bool,
    /// Whether anything was received since the last check.
    received: bool,
    /// Whether the peer was pinged, and has until the next check to respond.
    asked: bool,
    /// Whether the last write was blocked, which may have been within a frame. If it was not, HTTP
    /// has written all that it had.
    blocked: bool,
    /// The rest of the PING that is still to be written, and then flushed.
    question: Option<&'static [u8]>,
}

impl<S> Keepalive<S> {
    /// Wraps a stream whose peer has sent these first bytes. A peer that does not speak HTTP/2 is
    /// not pinged.
    pub(crate) fn new(stream: S, first: &[u8], longest_idle: Duration) -> Self {
        let interval = INTERVAL.min(longest_idle);
        Self {
            stream,
            look: Box::pin(tokio::time::sleep(interval)),
            interval,
            asks: first == PREFACE,
            activity: Arc::default(),
            unused_since: Instant::now(),
            longest_idle,
            taken: false,
            received: false,
            asked: false,
            blocked: false,
            question: None,
        }
    }

    /// Returns the stream.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Returns the connection's activity.
    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Marks a connection without a call for too long as idle; returns whether it was marked before
    /// and still exists.
    fn is_overdue(&mut self) -> bool {
        if self.activity.take_used() {
            self.unused_since = Instant::now();
            self.activity.set_idle(false);
            return false;
        }
        let is_idle_now = self.activity.is_idle();
        if self.unused_since.elapsed() >= self.longest_idle {
            self.activity.set_idle(true);
        }
        is_idle_now
    }
}

impl<S: AsyncWrite + Unpin> Keepalive<S> {
    /// Runs the check if it is due, and writes a pending PING.
    fn attend(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.look.as_mut().poll(context).is_ready() {
            let again = if self.asks { self.look_again()? } else { self.look_at_writing()? };
            self.look.as_mut().reset(Instant::now() + again);
        }
        match self.ask(context) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Ok(()),
        }
    }

    /// Checks a peer that can be pinged; returns the time until the next check.
    fn look_again(&mut self) -> io::Result<Duration> {
        let again = match (self.received, self.asked) {
            (true, _) => self.interval,
            (false, true) => return Err(io::ErrorKind::TimedOut.into()),
            (false, false) => PING_TIMEOUT.min(self.interval),
        };
        if self.is_overdue() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.asked = !self.received;
        self.received = false;
        if self.asked && !self.blocked && self.question.is_none() {
            self.question = Some(PING);
        }
        Ok(again)
    }

    /// Checks whether a peer that cannot be pinged reads what it is sent; returns the time until
    /// the next check.
    fn look_at_writing(&mut self) -> io::Result<Duration> {
        if self.blocked && !self.taken {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.taken = false;
        Ok(self.interval)
    }

    /// Writes the rest of the PING.
    fn ask(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(rest) = &mut self.question else { return Poll::Ready(Ok(())) };
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *rest = rest.get(written..).unwrap_or_default();
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.question = None;
        Poll::Ready(Ok(()))
    }

    /// Writes after the PING.
    fn write(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = match self.ask(context) {
            Poll::Ready(asked) => {
                asked?;
                let written = write(Pin::new(&mut self.stream), context);
                self.blocked = written.is_pending();
                self.taken |= written.is_ready();
                written
            }
            Poll::Pending => Poll::Pending,
        };
        self.or_give_up(written, context)
    }

    /// Checks while something is waited for, and fails if the peer is to be dropped.
    fn or_give_up<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_pending() {
            self.attend(context)?;
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Keepalive<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received |= read.is_ready();
        self.or_give_up(read, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Keepalive<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream, context| stream.poll_write(context, buffer))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream, context| stream.poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match self.ask(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_flush(context),
            outcome => outcome,
        };
        self.or_give_up(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use h2::{client, server};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tonic::codegen::Bytes;
    use tonic::codegen::http::{Request, Response};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// Both ends of a connection, of which the second is the server's.
    fn connection(first: &[u8], room: usize) -> (DuplexStream, Keepalive<DuplexStream>) {
        let (client, server) = duplex(room);
        (client, Keepalive::new(server, first, Duration::MAX))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_that_answers_pings_stays_connected() {
        let (client, server) = connection(PREFACE, 1 << 16);
        tokio::spawn(async move {
            let mut calls = server::handshake(server).await.unwrap();
            while let Some(call) = calls.accept().await {
                call.unwrap().1.send_response(Response::new(()), true).unwrap();
            }
        });
        let (mut calls, connection) = client::handshake(client).await.unwrap();
        tokio::spawn(async { connection.await.unwrap() });
        for _ in 0..10 {
            calls = calls.ready().await.unwrap();
            let (answer, _) = calls.send_request(Request::new(()), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
            tokio::time::sleep(HOUR).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_once_and_then_disconnected() {
        let (mut client, mut server) = connection(PREFACE, 1 << 16);
        client.write_all(b"x").await.unwrap();
        let began = Instant::now();

        let mut received = Vec::new();
        let error = server.read_to_end(&mut received).await.unwrap_err();

        assert_eq!((error.kind(), &received[..]), (io::ErrorKind::TimedOut, &b"x"[..]));
        assert_eq!(began.elapsed().as_secs(), (2 * INTERVAL + PING_TIMEOUT).as_secs());
        drop(server);
        let mut asked = Vec::new();
        client.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, PING);
    }

    #[tokio::test(start_paused = true)]
    async fn no_ping_is_inserted_into_unsent_data() {
        let (mut client, server) = connection(PREFACE, 64);
        let (mut reads, mut writes) = tokio::io::split(server);
        let frame = Bytes::from(vec![7; 1_000]);
        let written = frame.clone();
        let writing = tokio::spawn(async move { writes.write_all(&written).await });
        let reading = tokio::spawn(async move { reads.read_u8().await });
        tokio::time::sleep(INTERVAL + PING_TIMEOUT / 2).await;
        // It reads again, and sends something, before it is dropped.
        let mut taken = vec![0; 1_000];
        client.read_exact(&mut taken).await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!((taken, reading.await.unwrap().unwrap()), (frame.to_vec(), b'x'));
        writing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_neither_reads_nor_sends_is_disconnected_during_a_write() {
        let (_client, mut server) = connection(PREFACE, 64);
        let began = Instant::now();
        let error = server.write_all(&[7; 1_000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), INTERVAL + PING_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_written_ping_is_finished_before_other_data() {
        let (mut client, mut server) = connection(PREFACE, 9);
        tokio::select! {
            read = server.read_u8() => panic!("{read:?}"),
            () = tokio::time::sleep(INTERVAL + PING_TIMEOUT / 2) => {}
        }
        let reading = tokio::spawn(async move {
            let mut taken = Vec::new();
            client.read_to_end(&mut taken).await.unwrap();
            taken
        });
        server.write_all(b"more").await.unwrap();
        drop(server);
        assert_eq!(reading.await.unwrap(), [PING, b"more"].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_calls_gets_goaway_and_is_then_closed() {
        let (mut client, server) = duplex(1 << 16);
        let mut server = Keepalive::new(server, PREFACE, 4 * INTERVAL);
        let (activity, began) = (server.activity(), Instant::now());
        // It responds to every PING.
        let answering = tokio::spawn(async move {
            let mut question = [0; 17];
            while client.read_exact(&mut question).await.is_ok() && client.write_all(&question).await.is_ok()
            {
            }
        });
        let call = activity.call_waits();
        let reading = tokio::spawn(async move { server.read_to_end(&mut Vec::new()).await });
        tokio::time::sleep(HOUR).await;
        assert!(!activity.is_idle() && !reading.is_finished(), "a call waits");
        drop(call);
        activity.call_began();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), activity.is_idle()), (io::ErrorKind::TimedOut, true));
        let idle = began.elapsed().checked_sub(HOUR).unwrap();
        assert!((4 * INTERVAL..7 * INTERVAL).contains(&idle), "{idle:?}");
        answering.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_http_1_client_that_reads_no_response_is_disconnected() {
        let (_client, mut server) = connection(b"GET / HTTP/1.1\r\nhost: a.b", 64);
        let began = Instant::now();
        let error = server.write_all(&[7; 1_000]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, 2 * INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_without_http_2_get_no_pings() {
        let (_client, mut server) = connection(b"GET / HTTP/1.1\r\nhost: a.b", 64);
        tokio::select! {
            read = server.read_u8() => panic!("{read:?}"),
            () = tokio::time::sleep(HOUR) => {}
        }
    }
}
