//! The bytes of a message while the rest of it is waited for, in pieces of one size: a single buffer would have to grow and be
//! copied, and the allocator keeps the earlier ones, each of another size, for a while. Called by readers of requests.

use axum::body::Bytes;
use prost::bytes::BytesMut;

/// The least growth of the first piece, in bytes; a larger one grows by an eighth.
const MIN_GROWTH: usize = 64;

/// The bytes of a piece. The first one is smaller until it is full.
const PIECE_BYTES: usize = 4 * 1024;

/// Received bytes.
#[derive(Debug, Default)]
pub struct Received {
    first: BytesMut,
    more: Vec<BytesMut>,
}

impl Received {
    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces().map(BytesMut::len).fold(0, usize::saturating_add)
    }

    /// Returns whether nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Returns how many bytes it takes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pieces().map(BytesMut::capacity).fold(0, usize::saturating_add)
    }

    /// Returns the bytes of the first piece: at least those of a prefix, if they have arrived.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.first
    }

    /// Appends bytes.
    pub fn append(&mut self, mut bytes: &[u8]) {
        if self.more.is_empty() {
            bytes = self.append_to_first(bytes);
        }
        while !bytes.is_empty() {
            if self.more.last().is_none_or(|last| last.len() == last.capacity()) {
                self.more.push(BytesMut::with_capacity(PIECE_BYTES));
            }
            if let Some(last) = self.more.last_mut() {
                let room = last.capacity().saturating_sub(last.len());
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                last.extend_from_slice(now);
                bytes = later;
            }
        }
    }

    /// Appends to the first piece, and returns what does not fit.
    fn append_to_first<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let room = PIECE_BYTES.max(self.first.capacity()).saturating_sub(self.first.len());
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        let length = self.first.len().saturating_add(now.len());
        if self.first.capacity() < length {
            let grown = length.saturating_add((length / 8).max(MIN_GROWTH));
            let mut larger = BytesMut::with_capacity(grown.min(PIECE_BYTES));
            larger.extend_from_slice(&self.first);
            self.first = larger;
        }
        self.first.extend_from_slice(now);
        later
    }

    /// Returns all bytes in one buffer.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        self.join();
        self.first.freeze()
    }

    /// Takes the first `length` bytes, or all if there are fewer.
    pub fn take(&mut self, length: usize) -> Bytes {
        self.join();
        self.first.split_to(length.min(self.first.len())).freeze()
    }

    fn join(&mut self) {
        if !self.more.is_empty() {
            let mut whole = BytesMut::with_capacity(self.len());
            self.pieces().for_each(|piece| whole.extend_from_slice(piece));
            *self = Self::from(whole);
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &BytesMut> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

impl From<BytesMut> for Received {
    fn from(first: BytesMut) -> Self {
        Self { first, more: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_little_more_than_their_length_and_are_returned_in_order() {
        let bytes: Vec<u8> = (0..20_000_u32).flat_map(u32::to_be_bytes).collect();
        for length in [1, 7, 500, 5_000, bytes.len()] {
            let mut received = Received::default();
            for part in bytes.chunks(length) {
                received.append(part);
                let spare = if received.len() > PIECE_BYTES {
                    PIECE_BYTES
                } else {
                    (received.len() / 8).max(MIN_GROWTH)
                };
                assert!(received.capacity() <= received.len() + spare, "{}", received.len());
            }
            assert_eq!(received.len(), bytes.len());
            assert_eq!(received.take(3), bytes[..3]);
            received.append(b"end");
            assert_eq!(received.into_bytes(), [&bytes[3..], b"end"].concat());
        }
    }

    #[test]
    fn a_longer_first_piece_is_kept() {
        let mut received = Received::from(BytesMut::from(&[1; 10_000][..]));
        received.append(&[2; 5_000]);
        assert_eq!((received.len(), received.start().len() >= 10_000), (15_000, true));
        assert_eq!(received.into_bytes()[..], [&[1; 10_000][..], &[2; 5_000]].concat());
    }
}
