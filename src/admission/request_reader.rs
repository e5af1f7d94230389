//! Reads requests to their end, and counts what has arrived while the rest is waited for. Called by the listeners'
//! services. Knows no protocol above HTTP.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::request::Parts;
use http_body::Body;
use tokio::time::Sleep;

use super::fair_limiter::Refused;
use super::packed_head::PackedHead;
use super::received::Received;
use super::request_memory::{ConnectionRequests, Reservation};

/// From this length on, a request that arrived at once is counted until it is answered.
const LARGE_BYTES: usize = 4 * 1024;

/// Why a request is not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is longer than the limit.
    #[error("the request has more than the {0} bytes that are read")]
    TooLong(usize),
    /// The rest of it did not arrive in time.
    #[error("the request did not arrive completely in time; send its message at once")]
    TooLate,
    /// Too many bytes are unfinished already.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The connection or the peer ended it.
    #[error("the request was not sent completely")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Marks a request whose message was not read because it is too long, for methods that report that
/// themselves.
#[derive(Debug, Clone, Copy)]
pub struct TooLong;

/// A request's whole body, and its reservation.
#[derive(Debug)]
pub struct Whole {
    /// The bytes of its frames, concatenated.
    pub bytes: Bytes,
    /// Kept until the request is answered.
    pub reservation: Option<Reservation>,
}

impl ConnectionRequests {
    /// Reads a request to its end: `received`, which has already arrived, then the rest of `body`. While it
    /// waits, the request shares no memory with other data of the connection, and its head is packed.
    ///
    /// # Errors
    /// [`ReadError`], except for the timeout, which the caller applies.
    pub async fn read<B>(
        self: Arc<Self>,
        parts: Box<Parts>,
        mut received: Received,
        mut body: B,
        check: impl Fn(&Received) -> Result<(), ReadError>,
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
                        let packed = PackedHead::from(*parts);
                        let reservation = self.open(packed.size() + received.capacity())?;
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
            received.append(&data);
            drop(data);
            if let Head::Packed(_, reservation) = &mut head {
                reservation.grow(received.capacity() - before)?;
            }
            check(&received)?;
        }
        let (parts, reservation) = match head {
            Head::Packed(packed, mut reservation) => {
                reservation.finish(packed.size() + received.capacity());
                (packed.unpack(), Some(reservation))
            }
            Head::Read(parts) if received.len() >= LARGE_BYTES => {
                let mut whole = self.reserve(received.len())?;
                whole.finish(received.len());
                (parts, Some(whole))
            }
            Head::Read(parts) => (parts, None),
        };
        Ok((parts, Whole { bytes: received.into_bytes(), reservation }))
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
        match requests.open(bytes) {
            Ok(reservation) => {
                let mut deadline = Box::pin(tokio::time::sleep(requests.read_timeout()));
                let over = deadline.as_mut().poll(context).map(|()| ReadError::TooLate);
                *waiting = Some(Self { reservation, counted: bytes, deadline });
                over
            }
            Err(refused) => Poll::Ready(refused.into()),
        }
    }
}

/// A request's head, while the request is read.
enum Head {
    Read(Box<Parts>),
    /// The rest of the request is waited for.
    Packed(PackedHead, Reservation),
}
