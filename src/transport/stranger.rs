//! The memory of an unauthenticated client's connection. HTTP keeps more than requests show: stream
//! and header tables, unfinished heads and frames. The amount is not known, so an upper bound is
//! computed from the bytes sent and counted against the limit for requests. Used by connections
//! until their peers are known.

use std::io;
use std::net::IpAddr;

use super::keepalive::PREFACE;
use crate::admission::fair_limiter::Permit;
use crate::admission::request_memory::RequestLimiter;

/// The bytes from which a connection is asked to end once it has no call, and the most that it
/// takes, for any input.
const ENDS: usize = 128 * 1024;
const MOST: usize = 1024 * 1024;

/// The bytes of a call in addition to those sent: table entries, and its response.
const CALL: usize = 512;

/// The bytes of an unread DATA frame in addition to its payload.
const DATA: usize = 128;

/// The bytes of headers that have not ended.
const UNENDED: usize = 64 * 1024;

/// The bytes of an HTTP/1 request that a new connection's buffer holds anyway, and the most that it
/// keeps once a request is read.
const HTTP1: (usize, usize) = (8 * 1024, 16 * 1024);

/// The memory accounting of one connection.
#[derive(Debug)]
pub(super) struct Stranger {
    limiter: RequestLimiter,
    place: Permit<IpAddr>,
    taken: usize,
    http: Http,
}

#[derive(Debug)]
enum Http {
    /// The bytes of the current request, and what is kept of the longest so far.
    One {
        come: usize,
        kept: usize,
    },
    Two(Frames),
}

/// Finds where frames begin (RFC 9113, 4.1).
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    rest: usize,
}

impl Stranger {
    /// Starts with a connection whose peer has sent these first bytes.
    pub(super) fn new(limiter: RequestLimiter, address: IpAddr, first: &[u8]) -> Self {
        let http = if first == PREFACE {
            Http::Two(Frames::default())
        } else {
            Http::One { come: first.len(), kept: 0 }
        };
        let place = limiter.place(address.to_canonical());
        Self { limiter, place, taken: 0, http }
    }

    /// Counts received bytes; returns whether the connection should end.
    ///
    /// # Errors
    /// The limit is reached: the connection must end.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let taken = match &mut self.http {
            Http::One { come, kept } => {
                *come = come.saturating_add(bytes.len());
                *kept = (*kept).max((*come).min(HTTP1.1).saturating_sub(HTTP1.0));
                (*kept).max(come.saturating_sub(HTTP1.0))
            }
            Http::Two(frames) => self.taken.saturating_add(frames.hear(bytes)).min(MOST),
        };
        if self.limiter.resize(&mut self.place, self.taken, taken).is_err() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.taken = taken;
        Ok(taken > ENDS)
    }

    /// Starts a new count: a response is written, so an HTTP/1 request has been read.
    pub(super) fn answered(&mut self) {
        if let Http::One { come, kept } = &mut self.http {
            *come = 0;
            if self.taken > *kept {
                self.place.shrink(*kept);
                self.taken = *kept;
            }
        }
    }
}

impl Frames {
    const HEAD: usize = 9;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const END_HEADERS: u8 = 4;

    /// Returns the most memory that these bytes may take.
    fn hear(&mut self, mut bytes: &[u8]) -> usize {
        let mut taken = bytes.len();
        while !bytes.is_empty() {
            let passed = self.rest.min(bytes.len());
            bytes = bytes.get(passed..).unwrap_or_default();
            self.rest = self.rest.saturating_sub(passed);
            let missing = Self::HEAD.saturating_sub(self.head.len()).min(bytes.len());
            let (head, behind) = bytes.split_at(missing);
            self.head.extend_from_slice(head);
            bytes = behind;
            if let [a, b, c, kind, flags, ..] = *self.head
                && self.head.len() == Self::HEAD
            {
                self.rest = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
                taken = taken.saturating_add(match kind {
                    Self::DATA => DATA,
                    Self::HEADERS if flags & Self::END_HEADERS == 0 => CALL + UNENDED,
                    Self::HEADERS => CALL,
                    _ => 0,
                });
                self.head.clear();
            }
        }
        taken
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
    fn frames_are_found_however_they_are_cut() {
        let sent =
            [frame(4, 0, 0), frame(1, 4, 30), frame(0, 0, 1), frame(0, 1, 200), frame(1, 0, 0)].concat();
        let expected = sent.len() + 2 * CALL + 2 * DATA + UNENDED;
        for length in [1, 2, 7, 9, 10, 64, sent.len()] {
            let mut frames = Frames::default();
            let taken: usize = sent.chunks(length).map(|piece| frames.hear(piece)).sum();
            assert_eq!(taken, expected, "in pieces of {length}");
        }
    }
}
