//! The memory of unanswered requests: what a peer has sent is counted once the rest has to be
//! waited for, per connection, per address and in total. So unauthenticated clients, however many,
//! use no more than this limit. Called by the listeners' services. Knows no protocol above HTTP.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body::Body;
use prost::bytes::BytesMut;
use tokio::time::Sleep;

use super::fair_limiter::{FairLimiter, Permit, Refused};
use crate::metrics::RequestMetrics;

/// The most bytes of a connection's unfinished requests: before its peer has shown a credential, and after.
const CONNECTION_BYTES: usize = 340 * 1024;
const KNOWN_CONNECTION_BYTES: usize = 1024 * 1024;

/// The bytes of an open request in addition to what was sent: its future, and its entries in HTTP's tables.
const OPEN: usize = 3 * 1024;

/// The least growth of a full buffer in bytes; larger ones grow by an eighth.
const GROWTH: usize = 64;

/// From this length on, a request that arrived at once is counted until it is answered.
const LARGE: usize = 4 * 1024;

/// Why a request is not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is longer than the limit.
    #[error("the request has more than the {0} bytes that are read")]
    TooLong(usize),
    /// The rest of it did not arrive in time.
    #[error("the request did not arrive whole in time; send its message at once")]
    TooLate,
    /// Too many bytes are unfinished already.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The connection or the peer ended it.
    #[error("the request was not sent to its end")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Marks a request whose message was not read because it is too long, for methods that report that
/// themselves.
#[derive(Debug, Clone, Copy)]
pub struct TooLong;

/// Limits the bytes of the requests of all connections.
#[derive(Debug, Clone)]
pub struct RequestLimiter {
    bytes: FairLimiter<IpAddr>,
    patience: Duration,
    metrics: RequestMetrics,
}

/// The requests of one connection.
#[derive(Debug)]
pub struct ConnectionRequests {
    limiter: RequestLimiter,
    address: IpAddr,
    /// Whether its peer has shown a credential.
    known: Arc<AtomicBool>,
    unfinished: AtomicUsize,
}

/// The bytes of a request; returned when dropped.
#[derive(Debug)]
pub struct Reservation {
    connection: Arc<ConnectionRequests>,
    place: Permit<IpAddr>,
    unfinished: usize,
}

/// A request's whole body, and its reservation.
#[derive(Debug)]
pub struct Whole {
    /// The bytes of its frames, concatenated.
    pub bytes: Bytes,
    /// Kept until the request is answered.
    pub reservation: Option<Reservation>,
}

impl RequestLimiter {
    fn count(&self, refused: Refused) {
        match refused {
            Refused::Full => self.metrics.refused_full(),
            Refused::OverShare => self.metrics.refused_over_share(),
        }
    }

    /// Creates a limiter for this many bytes; `patience` bounds the wait for the rest of a request.
    #[must_use]
    pub fn new(bytes: usize, patience: Duration, metrics: RequestMetrics) -> Self {
        Self { bytes: FairLimiter::new(bytes), patience, metrics }
    }

    /// Starts to count the requests of a connection from this address; `known` becomes true when
    /// its peer has shown a credential.
    #[must_use]
    pub fn connection(&self, address: IpAddr, known: Arc<AtomicBool>) -> Arc<ConnectionRequests> {
        Arc::new(ConnectionRequests {
            limiter: self.clone(),
            address,
            known,
            unfinished: AtomicUsize::new(0),
        })
    }

    /// Returns an empty permit for other memory of a connection from this address.
    pub(crate) fn place(&self, address: IpAddr) -> Permit<IpAddr> {
        self.bytes.place(address)
    }

    /// Changes a permit from `from` bytes to `to` bytes.
    ///
    /// # Errors
    /// [`Refused`]: its address, or all addresses together, take too much.
    pub(crate) fn resize(&self, place: &mut Permit<IpAddr>, from: usize, to: usize) -> Result<(), Refused> {
        let Some(more) = to.checked_sub(from) else {
            place.shrink(to);
            return Ok(());
        };
        place.grow(more).inspect_err(|refused| self.count(*refused))
    }

    /// Returns how many bytes are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.bytes.taken()
    }
}

impl ConnectionRequests {
    /// Returns how long to wait for the rest of a request.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.limiter.patience
    }

    /// Reserves bytes for a request whose rest is waited for.
    ///
    /// # Errors
    /// [`Refused`]: the connection, its address or all together have too much unfinished.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation, Refused> {
        let taken = self.take(bytes).and_then(|()| {
            self.limiter.bytes.take_many(self.address, bytes).inspect_err(|_| self.give_back(bytes))
        });
        let place = taken.inspect_err(|refused| self.limiter.count(*refused))?;
        Ok(Reservation { connection: Arc::clone(self), place, unfinished: bytes })
    }

    /// Reserves the bytes of an open request of which nothing has arrived yet.
    ///
    /// # Errors
    /// [`Refused`]: the connection, its address or all together have too much unfinished.
    pub fn open(self: &Arc<Self>) -> Result<Reservation, Refused> {
        self.reserve(OPEN)
    }

    /// Reads a request to its end: `received`, which has already arrived, then the rest of `body`. While it
    /// waits, the request shares no memory with other data of the connection, and its head is packed.
    ///
    /// # Errors
    /// [`ReadError`], except for the timeout, which the caller applies.
    pub async fn read<B>(
        self: Arc<Self>,
        parts: Box<Parts>,
        mut received: BytesMut,
        mut body: B,
        check: impl Fn(&[u8]) -> Result<(), ReadError>,
    ) -> Result<(Box<Parts>, Whole), ReadError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut head = Head::Read(parts);
        check(&received)?;
        loop {
            let at_once = poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_frame(context))).await;
            let frame = match at_once {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if let Head::Read(parts) = head {
                        let packed = Packed::from(*parts);
                        let reservation = self.reserve(OPEN + packed.text.len() + received.capacity())?;
                        head = Head::Packed(packed, reservation);
                    }
                    poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
                }
            };
            let Some(frame) = frame else { break };
            // Trailers are ignored.
            let Ok(data) = frame.map_err(|error| ReadError::Body(error.into()))?.into_data() else {
                continue;
            };
            let before = received.capacity();
            append(&mut received, &data);
            if let Head::Packed(_, reservation) = &mut head {
                reservation.grow(received.capacity() - before)?;
            }
            check(&received)?;
        }
        let (parts, reservation) = match head {
            Head::Packed(packed, mut reservation) => {
                reservation.finish(packed.text.len() + received.capacity());
                (packed.unpack(), Some(reservation))
            }
            Head::Read(parts) if received.len() >= LARGE => {
                let mut whole = self.reserve(received.len())?;
                whole.finish(received.len());
                (parts, Some(whole))
            }
            Head::Read(parts) => (parts, None),
        };
        Ok((parts, Whole { bytes: received.freeze(), reservation }))
    }

    fn take(&self, bytes: usize) -> Result<(), Refused> {
        let most = if self.known.load(Ordering::Relaxed) { KNOWN_CONNECTION_BYTES } else { CONNECTION_BYTES };
        let fits = |taken: usize| Some(taken + bytes).filter(|sum| *sum <= most);
        let taken = self.unfinished.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(drop).map_err(|_| Refused::OverShare)
    }

    fn give_back(&self, bytes: usize) {
        self.unfinished.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Reserves more bytes, as more has arrived.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        let connection = &self.connection;
        let taken = connection
            .take(bytes)
            .and_then(|()| self.place.grow(bytes).inspect_err(|_| connection.give_back(bytes)));
        taken.inspect_err(|refused| connection.limiter.count(*refused))?;
        self.unfinished += bytes;
        Ok(())
    }

    /// Counts the request as arrived: no longer against its connection, and against its address
    /// only with the bytes sent, since from now on the limit of calls bounds what waits.
    pub fn finish(&mut self, sent: usize) {
        self.place.shrink(sent.min(self.unfinished));
        self.connection.give_back(std::mem::take(&mut self.unfinished));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.connection.give_back(self.unfinished);
    }
}

/// The rest of a stream's message, which is waited for.
#[derive(Debug)]
pub struct Unfinished {
    reservation: Reservation,
    counted: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Unfinished {
    /// Waits for more, with `bytes` of the message received: starts or continues to count them, and
    /// the timeout. Ready when it gives up.
    pub fn poll(
        waiting: &mut Option<Self>,
        requests: &Arc<ConnectionRequests>,
        bytes: usize,
        context: &mut Context<'_>,
    ) -> Poll<ReadError> {
        if let Some(this) = waiting {
            if let Err(refused) = this.reservation.grow(bytes.saturating_sub(this.counted)) {
                return Poll::Ready(refused.into());
            }
            this.counted = this.counted.max(bytes);
            return this.deadline.as_mut().poll(context).map(|()| ReadError::TooLate);
        }
        match requests.reserve(OPEN + bytes) {
            Ok(reservation) => {
                let mut deadline = Box::pin(tokio::time::sleep(requests.patience()));
                let over = deadline.as_mut().poll(context).map(|()| ReadError::TooLate);
                *waiting = Some(Self { reservation, counted: bytes, deadline });
                over
            }
            Err(refused) => Poll::Ready(refused.into()),
        }
    }
}

/// Appends bytes with little spare capacity: a buffer that doubles would take twice what is counted.
pub fn append(buffer: &mut BytesMut, bytes: &[u8]) {
    let length = buffer.len() + bytes.len();
    if buffer.capacity() < length {
        let mut larger = BytesMut::with_capacity(length + (length / 8).max(GROWTH));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(bytes);
}

/// A request's head, while the request is read.
enum Head {
    Read(Box<Parts>),
    /// The rest of the request is waited for.
    Packed(Packed, Reservation),
}

/// The text of a request's head in one allocation: apart from the buffer that it was read into, and
/// without the table of headers; both may be many times as long.
struct Packed {
    text: Box<[u8]>,
    version: Version,
    extensions: Extensions,
}

impl From<Parts> for Packed {
    fn from(parts: Parts) -> Self {
        let (headers, uri, method) = (parts.headers, parts.uri.to_string(), parts.method);
        let text: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let lengths = (2 * headers.len() + 2) * size_of::<u32>();
        let mut packed = Vec::with_capacity(method.as_str().len() + uri.len() + text + lengths);
        put(&mut packed, method.as_str().as_bytes());
        put(&mut packed, uri.as_bytes());
        for (name, value) in &headers {
            put(&mut packed, name.as_str().as_bytes());
            put(&mut packed, value.as_bytes());
        }
        Self { text: packed.into(), version: parts.version, extensions: parts.extensions }
    }
}

impl Packed {
    fn unpack(self) -> Box<Parts> {
        let (mut parts, ()) = Request::new(()).into_parts();
        let mut rest = &*self.text;
        parts.method = next(&mut rest).and_then(|text| Method::from_bytes(text).ok()).unwrap_or_default();
        parts.uri = next(&mut rest).and_then(|text| Uri::try_from(text).ok()).unwrap_or_default();
        while let (Some(name), Some(value)) = (next(&mut rest), next(&mut rest)) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                parts.headers.append(name, value);
            }
        }
        (parts.version, parts.extensions) = (self.version, self.extensions);
        Box::new(parts)
    }
}

fn put(packed: &mut Vec<u8>, text: &[u8]) {
    packed.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    packed.extend_from_slice(text);
}

fn next<'p>(packed: &mut &'p [u8]) -> Option<&'p [u8]> {
    let (length, rest) = packed.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *packed = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn limiter(bytes: usize) -> RequestLimiter {
        let metrics = Metrics::new().unwrap().work.requests.clone();
        RequestLimiter::new(bytes, Duration::from_secs(1), metrics)
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_connection_an_address_and_all_together_have_a_bound_each() {
        let limiter = limiter(4 * CONNECTION_BYTES);
        let first = limiter.connection(address(1), Arc::default());
        let mut held = first.reserve(CONNECTION_BYTES).unwrap();
        assert_eq!(first.reserve(1).unwrap_err(), Refused::OverShare);
        assert_eq!(held.grow(1).unwrap_err(), Refused::OverShare);
        let second = limiter.connection(address(1), Arc::default());
        let _also = second.reserve(CONNECTION_BYTES).unwrap();
        assert_eq!(
            limiter.connection(address(1), Arc::default()).reserve(1).unwrap_err(),
            Refused::OverShare
        );
        let other = limiter.connection(address(2), Arc::default());
        let _others = other.reserve(CONNECTION_BYTES).unwrap();
        assert_eq!(limiter.taken(), 3 * CONNECTION_BYTES);
        // A request that has arrived no longer counts for its connection, and for its address only
        // with the bytes sent.
        held.finish(7);
        assert_eq!(
            (limiter.taken(), first.unfinished.load(Ordering::Relaxed)),
            (2 * CONNECTION_BYTES + 7, 0)
        );
        drop(held);
        assert_eq!(limiter.taken(), 2 * CONNECTION_BYTES);
        assert!(first.reserve(1).is_ok());
    }

    #[test]
    fn whoever_has_shown_a_credential_may_have_as_many_unfinished_as_there_are_streams() {
        let limiter = limiter(4 * KNOWN_CONNECTION_BYTES);
        let known = Arc::new(AtomicBool::new(false));
        let connection = limiter.connection(address(1), Arc::clone(&known));
        let open = || (0..256).map_while(|_| connection.open().ok()).collect::<Vec<_>>().len();
        assert_eq!(open(), CONNECTION_BYTES / OPEN);
        known.store(true, Ordering::Relaxed);
        assert_eq!(open(), 256);
    }

    #[test]
    fn a_head_is_unpacked_as_it_was_packed() {
        let request = axum::http::Request::post("http://a.example/b?c=d")
            .header("authorization", "Bearer x")
            .header("x-two", "1")
            .header("x-other", "")
            .header("x-two", HeaderValue::from_bytes(b"\xff").unwrap());
        let (parts, ()) = request.version(Version::HTTP_2).body(()).unwrap().into_parts();
        let before = (Version::HTTP_2, Method::POST, parts.uri.clone(), parts.headers.clone());
        let after = Packed::from(parts).unpack();
        assert_eq!((after.version, after.method, after.uri, after.headers), before);
    }

    #[test]
    fn a_buffer_takes_little_more_than_what_is_in_it() {
        let mut buffer = BytesMut::new();
        for _ in 0..4_000 {
            append(&mut buffer, b"sixteen bytes ..");
            assert!(buffer.capacity() <= buffer.len() + (buffer.len() / 8).max(GROWTH));
        }
        assert_eq!(&buffer[63_984..], b"sixteen bytes ..");
    }
}
