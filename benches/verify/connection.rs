//! One connection of the load client: sends requests, and reports whether each got the expected
//! response. Driven by `load`. One call per request for Verify, or all requests on one stream for
//! `VerifyStream`. Respects the server's windows and its limit of concurrent streams.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::answers::AnswerReader;
use super::frame::{self, Frame, RequestHead};

/// How much is read at once, and after how many bytes the server's window is reopened.
const READ_SIZE: usize = 256 * 1024;
const WINDOW_STEP: u32 = 1 << 24;

/// `Verdict::RateLimited` in an answer.
const RATE_LIMITED: u8 = 9;

/// Whether each request is a separate call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Unary,
    Stream,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// When it was scheduled.
    pub(crate) scheduled: u64,
    pub(crate) end: End,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With the expected verdict, or with any message if none is expected.
    Good,
    /// With `RATE_LIMITED`, and that was not expected.
    Limited,
    /// With another verdict.
    Wrong,
    /// With a status and no message.
    Refused,
}

impl End {
    /// Compares a verdict with the expected one.
    fn of(expected: Option<u8>, found: u8) -> Self {
        match expected {
            Some(expected) if found == expected => Self::Good,
            Some(_) if found == RATE_LIMITED => Self::Limited,
            Some(_) => Self::Wrong,
            None => Self::Good,
        }
    }
}

#[derive(Debug)]
struct Call {
    scheduled: u64,
    end: End,
    ended: bool,
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    mode: Mode,
    head: RequestHead,
    verdict: Option<u8>,
    out: Vec<u8>,
    /// Requests of a stream that are not yet in a frame.
    together: Vec<u8>,
    received: Vec<u8>,
    length: usize,
    /// The calls, starting with stream `first_stream`.
    calls: VecDeque<Call>,
    first_stream: u32,
    next_stream: u32,
    outstanding: usize,
    max_streams: usize,
    window: i64,
    stream_window: i64,
    unacknowledged: u32,
    reader: AnswerReader,
}

impl Connection {
    /// Connects; `verdict` is the expected one of every response, if any.
    pub(crate) fn open(
        address: SocketAddr,
        head: RequestHead,
        mode: Mode,
        verdict: Option<u8>,
    ) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let mut out = Vec::with_capacity(READ_SIZE);
        frame::write_preface(&mut out);
        let mut connection = Self {
            socket,
            mode,
            head,
            verdict,
            out,
            together: Vec::new(),
            received: vec![0; 2 * READ_SIZE],
            length: 0,
            calls: VecDeque::new(),
            first_stream: 1,
            next_stream: 1,
            outstanding: 0,
            max_streams: 100,
            window: i64::from(frame::FIRST_WINDOW),
            stream_window: i64::from(frame::FIRST_WINDOW),
            unacknowledged: 0,
            reader: AnswerReader::default(),
        };
        if mode == Mode::Stream {
            connection.open_call(0);
        }
        connection.flush()?;
        connection.socket.set_nonblocking(true)?;
        Ok(connection)
    }

    /// Returns how many requests have no response yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Returns whether the server's limits allow another request of this size now.
    pub(crate) fn has_room(&self, size: usize) -> bool {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        match self.mode {
            Mode::Unary => self.outstanding < self.max_streams && size <= self.window,
            Mode::Stream => size <= self.window.min(self.stream_window),
        }
    }

    /// Returns whether there is anything left to write.
    pub(crate) fn wants_to_write(&self) -> bool {
        !self.out.is_empty() || !self.together.is_empty()
    }

    /// Queues a request; its bytes are sent with the next flush.
    pub(crate) fn send(&mut self, request: &[u8], scheduled: u64) {
        let size = i64::try_from(request.len()).unwrap_or(i64::MAX);
        self.window -= size;
        self.outstanding += 1;
        match self.mode {
            Mode::Unary => {
                let stream = self.open_call(scheduled);
                frame::write(&mut self.out, frame::DATA, frame::END_STREAM, stream, request);
            }
            Mode::Stream => {
                self.stream_window -= size;
                self.reader.expect(scheduled);
                if self.together.len() + request.len() > frame::LARGEST_PAYLOAD {
                    self.write_together();
                }
                self.together.extend(request);
            }
        }
    }

    /// Writes the queued requests of a stream in one frame, as tonic's clients do.
    fn write_together(&mut self) {
        if !self.together.is_empty() {
            frame::write(&mut self.out, frame::DATA, 0, 1, &self.together);
            self.together.clear();
        }
    }

    fn open_call(&mut self, scheduled: u64) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.calls.push_back(Call { scheduled, end: End::Refused, ended: false });
        let block = if stream == 1 { &self.head.first } else { &self.head.later };
        frame::write(&mut self.out, frame::HEADERS, frame::END_HEADERS, stream, block);
        stream
    }

    /// Writes as much as the socket accepts.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.write_together();
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => {
                    self.out.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has arrived and calls `done` with every outcome.
    pub(crate) fn receive(&mut self, mut done: impl FnMut(Outcome)) -> io::Result<()> {
        loop {
            let room = self.received.len() - self.length;
            match self.socket.read(&mut self.received[self.length..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.length += count;
                    self.take_frames(&mut done)?;
                    if count < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_frames(&mut self, done: &mut impl FnMut(Outcome)) -> io::Result<()> {
        // Moved out while the frames borrow it.
        let mut received = std::mem::take(&mut self.received);
        let mut taken = 0;
        while let Some((frame, size)) = Frame::split(&received[taken..self.length]) {
            self.take(frame, done)?;
            taken += size;
        }
        received.copy_within(taken..self.length, 0);
        self.length -= taken;
        self.received = received;
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>, done: &mut impl FnMut(Outcome)) -> io::Result<()> {
        match frame.kind {
            frame::SETTINGS if frame.flags & frame::ACK == 0 => self.obey(frame),
            frame::PING if frame.flags & frame::ACK == 0 => {
                frame::write(&mut self.out, frame::PING, frame::ACK, 0, frame.payload);
            }
            frame::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number()),
            frame::WINDOW_UPDATE => self.stream_window += i64::from(frame.number()),
            frame::GOAWAY => return Err(io::Error::other("the server said GOAWAY")),
            _ if frame.is_foreign() => return Err(io::Error::other("a padded frame")),
            frame::DATA | frame::HEADERS | frame::RST_STREAM => {
                if frame.kind == frame::DATA {
                    self.acknowledge(frame);
                }
                match self.mode {
                    Mode::Unary => self.answer_call(frame, done),
                    Mode::Stream => self.answer_stream(frame, done)?,
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn obey(&mut self, frame: Frame<'_>) {
        for (id, value) in frame.settings() {
            match id {
                frame::MAX_CONCURRENT_STREAMS => self.max_streams = value as usize,
                // Nothing but an empty stream has been sent before.
                frame::INITIAL_WINDOW_SIZE => {
                    self.stream_window += i64::from(value) - i64::from(frame::FIRST_WINDOW);
                }
                _ => {}
            }
        }
        frame::write(&mut self.out, frame::SETTINGS, frame::ACK, 0, &[]);
    }

    /// Reopens the windows that the server has used.
    fn acknowledge(&mut self, frame: Frame<'_>) {
        self.unacknowledged += u32::try_from(frame.payload.len()).unwrap_or(0);
        if self.unacknowledged >= WINDOW_STEP {
            let step = self.unacknowledged.to_be_bytes();
            frame::write(&mut self.out, frame::WINDOW_UPDATE, 0, 0, &step);
            if self.mode == Mode::Stream {
                frame::write(&mut self.out, frame::WINDOW_UPDATE, 0, 1, &step);
            }
            self.unacknowledged = 0;
        }
    }

    fn answer_call(&mut self, frame: Frame<'_>, done: &mut impl FnMut(Outcome)) {
        let place = (frame.stream.wrapping_sub(self.first_stream) / 2) as usize;
        let Some(call) = self.calls.get_mut(place).filter(|call| !call.ended) else { return };
        if frame.kind == frame::DATA {
            // An uncompressed message whose first field is the verdict.
            let found = match frame.payload {
                [0, _, _, _, _, 0x08, verdict, ..] => *verdict,
                _ => 0,
            };
            if call.end == End::Refused && !frame.payload.is_empty() {
                call.end = End::of(self.verdict, found);
            }
        }
        if frame.ends() || frame.kind == frame::RST_STREAM {
            call.ended = true;
            self.outstanding -= 1;
            let end = if frame.kind == frame::RST_STREAM { End::Wrong } else { call.end };
            done(Outcome { scheduled: call.scheduled, end });
        }
        while self.calls.front().is_some_and(|call| call.ended) {
            self.calls.pop_front();
            self.first_stream += 2;
        }
    }

    fn answer_stream(&mut self, frame: Frame<'_>, done: &mut impl FnMut(Outcome)) -> io::Result<()> {
        if frame.kind == frame::DATA {
            let verdict = self.verdict;
            let outstanding = &mut self.outstanding;
            self.reader.read(frame.payload, |scheduled, found| {
                *outstanding -= 1;
                done(Outcome { scheduled, end: End::of(verdict, found) });
            });
        }
        if frame.ends() || frame.kind == frame::RST_STREAM {
            return Err(io::Error::other("the server ended the stream"));
        }
        Ok(())
    }
}
