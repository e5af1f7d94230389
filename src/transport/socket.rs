//! The socket of a connection, with or without TLS. TLS buffers a record until it is complete, and a message of its
//! handshake over several records: how many bytes that takes is known here. Used by the handshake and by connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The most bytes that TLS buffers: a handshake message, as rustls limits it, and a record (RFC 8446, 5.2).
const MAX_BUFFERED: usize = 0xffff + 5 + 16 * 1024 + 256;

/// The bytes of a TLS session in addition to what it buffers.
const SESSION: usize = 8 * 1024;

/// A socket of a client.
#[derive(Debug)]
pub(super) enum Socket {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, after the handshake.
    Tls(Box<TlsStream<TlsInput>>),
}

/// What is beneath TLS: a socket whose received records are counted.
#[derive(Debug)]
pub(super) struct TlsInput {
    stream: TcpStream,
    records: Records,
}

/// Finds where records begin (RFC 8446, 5.1).
#[derive(Debug, Default)]
struct Records {
    /// The bytes of whole records since TLS returned data last.
    whole: usize,
    /// The bytes of the record that is not complete, and how many are missing once its head is known.
    partial: usize,
    missing: usize,
}

impl TlsInput {
    /// Wraps a socket on which TLS begins.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, records: Records::default() }
    }

    /// Returns how many bytes TLS takes at most. Its buffer doubles as it grows, and the allocator keeps smaller ones for a
    /// while.
    pub(super) fn taken(&self) -> usize {
        let buffered = self.records.whole.saturating_add(self.records.partial).min(MAX_BUFFERED);
        SESSION.saturating_add(buffered).saturating_add(buffered / 2)
    }

    /// Notes that TLS has ended its handshake, or returned data: it buffers no whole record.
    fn returned(&mut self) {
        self.records.whole = 0;
    }
}

impl Records {
    const HEAD: usize = 5;

    fn receive(&mut self, mut bytes: &[u8]) {
        while let [byte, rest @ ..] = bytes {
            if self.partial < Self::HEAD {
                // The length is in the last two bytes.
                self.missing = self.missing << 8 & 0xffff | usize::from(*byte);
                self.partial += 1;
                bytes = rest;
            } else {
                let (taken, rest) = bytes.split_at(self.missing.min(bytes.len()));
                self.partial = self.partial.saturating_add(taken.len());
                self.missing = self.missing.saturating_sub(taken.len());
                bytes = rest;
            }
            if self.partial >= Self::HEAD && self.missing == 0 {
                self.whole = self.whole.saturating_add(self.partial);
                self.partial = 0;
            }
        }
    }
}

impl Socket {
    /// Wraps a stream after its handshake.
    pub(super) fn tls(mut stream: TlsStream<TlsInput>) -> Self {
        stream.get_mut().0.returned();
        Self::Tls(Box::new(stream))
    }

    /// Returns how many bytes TLS takes at most.
    pub(super) fn taken(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.get_ref().0.taken(),
        }
    }
}

impl AsyncRead for TlsInput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.records.receive(buffer.filled().get(before..).unwrap_or_default());
        read
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => {
                let read = Pin::new(&mut *stream).poll_read(context, buffer);
                if read.is_ready() {
                    stream.get_mut().0.returned();
                }
                read
            }
        }
    }
}

impl AsyncWrite for TlsInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl AsyncWrite for Socket {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_records_are_found_in_any_fragmentation() {
        let record = |length: u16| {
            let mut record = [&[23, 3, 3][..], &length.to_be_bytes()].concat();
            record.resize(5 + usize::from(length), 0xff);
            record
        };
        let whole = [record(300), record(0), record(1)].concat();
        let sent = [&whole[..], &record(16_384)[..1_000]].concat();
        for length in [1, 2, 4, 5, 6, 300, sent.len()] {
            let mut records = Records::default();
            sent.chunks(length).for_each(|piece| records.receive(piece));
            assert_eq!((records.whole, records.partial), (whole.len(), 1_000), "in pieces of {length}");
        }
    }
}
