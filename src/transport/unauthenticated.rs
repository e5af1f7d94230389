//! The memory of an unauthenticated client's connection. TLS and HTTP keep more than requests show: records and handshakes
//! that are not complete, stream and header tables, unfinished heads and frames. The amount is not known, so an upper
//! bound is computed from the bytes received and counted against the limit for requests. Used by connections until their
//! peers are known.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Context;

use super::keepalive::PREFACE;
use crate::admission::eviction::{CONNECTION, Evictable};
use crate::admission::fair_limiter::Permit;
use crate::admission::request_memory::RequestLimiter;
use crate::domain::PeerNetwork;

/// The bytes from which a connection is asked to end once it has no call, and the most that it
/// takes, for any input.
const ASKED_TO_END_BYTES: usize = 192 * 1024;
const MAX_CONNECTION_BYTES: usize = 1024 * 1024;

/// The bytes of a call in addition to those sent: table entries, and its response.
const CALL_BYTES: usize = 512;

/// The bytes of a frame in the connection's table of unread frames, which doubles and never shrinks, and the most frames in
/// it: fewer unread ones fill the connection's window.
const UNREAD_FRAME_BYTES: usize = 288;
const MAX_UNREAD_FRAMES: usize = 2048;

/// The bytes of headers that have not ended: their table has the shortest fields that fit.
const UNENDED: usize = 112 * 1024;

/// The bytes of an HTTP/1 request that are not counted: most heads have no more.
const HTTP1_FREE: usize = 2 * 1024;

/// The most bytes of an HTTP/1 request in the connection's buffer, and those that the buffer keeps afterwards. Longer heads
/// are refused, and bodies are counted as requests.
const HTTP1_BUFFERED: usize = 32 * 1024;
const HTTP1_RETAINED: usize = 16 * 1024;

/// The bytes that are read before the connection's task yields to its calls, which count what they take. As many short calls
/// as a connection may have fit, so that all of them begin whole.
const BYTES_PER_TURN: usize = 128 * 1024;

/// The part of them that may be of one call, and the part for each call that begins.
const BURST_OF_ONE: usize = 16 * 1024;
const BURST_OF_CALL: usize = 512;

/// The bytes that are read at once. HTTP/2 then pauses: a few of them can begin a call whose head takes many times as much, until
/// the call is created, which packs it.
pub(super) const READ_BYTES: usize = 2 * 1024;

/// The memory accounting of one connection.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    limiter: RequestLimiter,
    permit: Permit<PeerNetwork>,
    evictable: Arc<Evictable>,
    /// The bytes of HTTP and of the connection itself, and those of TLS beneath it.
    http: usize,
    tls: usize,
    /// The bytes received since the task yielded or waited.
    burst: usize,
    /// Whether bytes were received since HTTP/2 paused.
    paused: bool,
    protocol: Protocol,
}

#[derive(Debug)]
enum Protocol {
    /// The bytes of the current request, and what is kept of the longest so far.
    Http1 {
        received: usize,
        retained: usize,
    },
    Http2(Frames),
}

/// Finds where frames begin (RFC 9113, 4.1).
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    rest: usize,
    /// The frames that calls have to read, since the task yielded or waited, and the bytes of the table of those.
    unread: usize,
    table: usize,
    /// The calls that have begun since then.
    calls: usize,
}

impl ConnectionMemory {
    /// Starts with a connection from which nothing has been read.
    pub(super) fn new(limiter: RequestLimiter, address: IpAddr) -> Self {
        let (permit, evictable) = limiter.unauthenticated(address);
        let protocol = Protocol::Http1 { received: 0, retained: 0 };
        Self { limiter, permit, evictable, http: CONNECTION, tls: 0, burst: 0, paused: true, protocol }
    }

    /// Continues with HTTP, which starts with these bytes.
    pub(super) fn begin_http(&mut self, first: &[u8]) {
        self.protocol = if first == PREFACE {
            Protocol::Http2(Frames::default())
        } else {
            Protocol::Http1 { received: first.len(), retained: 0 }
        };
    }

    /// Counts received bytes.
    ///
    /// # Errors
    /// The limit is reached: the connection must end.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.burst = self.burst.saturating_add(bytes.len());
        self.paused = false;
        let http = match &mut self.protocol {
            Protocol::Http1 { received, retained } => {
                *received = received.saturating_add(bytes.len());
                let of = |most: usize| most.min(*received).saturating_sub(HTTP1_FREE);
                *retained = (*retained).max(of(HTTP1_RETAINED));
                CONNECTION.saturating_add((*retained).max(of(HTTP1_BUFFERED)))
            }
            Protocol::Http2(frames) => {
                self.http.saturating_add(frames.receive(bytes)).min(MAX_CONNECTION_BYTES)
            }
        };
        self.count(http, self.tls)
    }

    /// Counts what TLS takes while more has to be waited for. The task is woken when the connection is evicted.
    ///
    /// # Errors
    /// The limit is reached, or the connection is evicted: it must end.
    pub(super) fn wait(&mut self, context: &Context<'_>, tls: usize) -> io::Result<()> {
        self.end_burst();
        self.count(self.http, tls)?;
        self.evictable.wake(context);
        // It may have been evicted before.
        self.may_stay()
    }

    /// Fails once the connection is evicted.
    pub(super) fn may_stay(&self) -> io::Result<()> {
        if self.evictable.is_evicted() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Returns whether the task must yield; if so, it is woken again.
    pub(super) fn must_yield(&mut self, context: &Context<'_>) -> bool {
        let limit = match &self.protocol {
            Protocol::Http1 { .. } => BYTES_PER_TURN,
            Protocol::Http2(frames) => {
                BYTES_PER_TURN.min(BURST_OF_ONE.saturating_add(frames.calls.saturating_mul(BURST_OF_CALL)))
            }
        };
        let must = self.burst >= limit;
        if must {
            self.end_burst();
            context.waker().wake_by_ref();
        }
        must
    }

    /// Returns whether HTTP/2 must look at what it has received before it reads more; if so, the task is woken again.
    pub(super) fn must_pause(&mut self, context: &Context<'_>) -> bool {
        let must = !self.paused && matches!(self.protocol, Protocol::Http2(_));
        if must {
            self.paused = true;
            context.waker().wake_by_ref();
        }
        must
    }

    /// Returns whether the connection should end once it has no call.
    pub(super) fn is_overspent(&self) -> bool {
        self.http > ASKED_TO_END_BYTES
    }

    /// Starts a new count: a response is written, so an HTTP/1 request has been read.
    pub(super) fn answered(&mut self) {
        if let Protocol::Http1 { received, retained } = &mut self.protocol {
            *received = 0;
            let retained = CONNECTION.saturating_add(*retained);
            if self.http > retained {
                // Giving back never fails.
                let _ = self.count(retained, self.tls);
            }
        }
    }

    /// Calls read what has arrived.
    fn end_burst(&mut self) {
        self.burst = 0;
        if let Protocol::Http2(frames) = &mut self.protocol {
            (frames.unread, frames.calls) = (0, 0);
        }
    }

    fn count(&mut self, http: usize, tls: usize) -> io::Result<()> {
        let (before, now) = (self.http.saturating_add(self.tls), http.saturating_add(tls));
        if now != before {
            if self.limiter.resize(&mut self.permit, before, now).is_err() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.evictable.set_taken(now);
        }
        (self.http, self.tls) = (http, tls);
        Ok(())
    }
}

impl Frames {
    const HEAD: usize = 9;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const END_HEADERS: u8 = 4;

    /// Returns the most memory that these bytes may take.
    fn receive(&mut self, mut bytes: &[u8]) -> usize {
        let mut taken = bytes.len();
        while !bytes.is_empty() {
            let passed = self.rest.min(bytes.len());
            bytes = bytes.get(passed..).unwrap_or_default();
            self.rest = self.rest.saturating_sub(passed);
            let missing = Self::HEAD.saturating_sub(self.head.len()).min(bytes.len());
            let (head, after) = bytes.split_at(missing);
            self.head.extend_from_slice(head);
            bytes = after;
            if let [a, b, c, kind, flags, ..] = *self.head
                && self.head.len() == Self::HEAD
            {
                self.rest = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
                self.calls = self.calls.saturating_add(usize::from(kind == Self::HEADERS));
                taken = taken.saturating_add(match kind {
                    Self::DATA => self.unread(),
                    Self::HEADERS if flags & Self::END_HEADERS == 0 => CALL_BYTES + UNENDED + self.unread(),
                    Self::HEADERS => CALL_BYTES + self.unread(),
                    _ => 0,
                });
                self.head.clear();
            }
        }
        taken
    }

    /// Counts a frame that a call has to read; returns the growth of the table of those.
    fn unread(&mut self) -> usize {
        self.unread = self.unread.saturating_add(1).min(MAX_UNREAD_FRAMES);
        let table = self.table.max(UNREAD_FRAME_BYTES.saturating_mul(self.unread.next_power_of_two()));
        let growth = table.saturating_sub(self.table);
        self.table = table;
        growth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a payload of `length` bytes.
    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(frame.len() + usize::from(length), 0xff);
        frame
    }

    #[test]
    fn frames_are_found_in_any_fragmentation() {
        let sent =
            [frame(4, 0, 0), frame(1, 4, 30), frame(0, 0, 1), frame(0, 1, 200), frame(1, 0, 0)].concat();
        // Of four frames.
        let expected = sent.len() + 2 * CALL_BYTES + 4 * UNREAD_FRAME_BYTES + UNENDED;
        for length in [1, 2, 7, 9, 10, 64, sent.len()] {
            let mut frames = Frames::default();
            let taken: usize = sent.chunks(length).map(|piece| frames.receive(piece)).sum();
            assert_eq!(taken, expected, "in pieces of {length}");
        }
    }

    #[test]
    fn the_table_of_unread_frames_grows_to_their_largest_number() {
        let mut frames = Frames::default();
        let grown = |number: usize, frames: &mut Frames| (0..number).map(|_| frames.unread()).sum::<usize>();
        assert_eq!(grown(5, &mut frames), 8 * UNREAD_FRAME_BYTES);
        frames.unread = 0;
        assert_eq!(grown(8, &mut frames), 0);
        assert_eq!(grown(1, &mut frames), 8 * UNREAD_FRAME_BYTES);
        assert_eq!(grown(10_000, &mut frames), (MAX_UNREAD_FRAMES - 16) * UNREAD_FRAME_BYTES);
    }
}
