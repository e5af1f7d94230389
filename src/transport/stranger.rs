//! What a connection takes whose peer has not shown yet who it is. HTTP keeps more of what it reads than any request
//! tells: the tables of streams and of headers, heads and frames that have not come to their end. It is not known how
//! much, so the most that it may be is counted, from what is sent, against what there is for strangers' requests. Used
//! by connections; looked at no more once their peers are known.

use std::io;
use std::net::IpAddr;

use super::keepalive::PREFACE;
use crate::admission::fair_limiter::Permit;
use crate::admission::request_memory::RequestLimiter;

/// From how much on a connection is told to end, once it has no call; and what it takes at most, whatever is sent.
const ENDS: usize = 128 * 1024;
const MOST: usize = 1024 * 1024;

/// What a call takes beside its bytes: the tables' entries, and what it is answered by.
const CALL: usize = 512;

/// What a frame of data takes beside its bytes, for as long as it is not read.
const DATA: usize = 128;

/// What headers take that have not come to their end.
const UNENDED: usize = 64 * 1024;

/// How much of a request of HTTP/1 a new connection has room for anyway; how much is kept when it has been read.
const HTTP1: (usize, usize) = (8 * 1024, 16 * 1024);

/// What is counted of a connection.
#[derive(Debug)]
pub(super) struct Stranger {
    limiter: RequestLimiter,
    place: Permit<IpAddr>,
    taken: usize,
    http: Http,
}

#[derive(Debug)]
enum Http {
    /// How much of a request has come, and what the longest of them keeps.
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
    /// Begins with a connection whose peer has begun with these bytes.
    pub(super) fn new(limiter: RequestLimiter, address: IpAddr, first: &[u8]) -> Self {
        let http = if first == PREFACE {
            Http::Two(Frames::default())
        } else {
            Http::One { come: first.len(), kept: 0 }
        };
        let place = limiter.place(address.to_canonical());
        Self { limiter, place, taken: 0, http }
    }

    /// Counts what has been heard; tells whether the connection should come to its end.
    ///
    /// # Errors
    /// It has to end: there is no more to take.
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

    /// Counts anew: a request of HTTP/1 has been read, since something is answered.
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

    /// Returns the most that these bytes may take.
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

    /// A frame with so many bytes behind its head.
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
