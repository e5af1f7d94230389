//! The parts of HTTP/2 (RFC 9113) and HPACK (RFC 7541) that the load client writes and reads. Used by
//! `connection`. A client as light as this one leaves the CPU to the measured server.

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The settings used here.
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// The largest flow-control window, and the initial one of every stream and connection.
pub(crate) const LARGEST_WINDOW: u32 = (1 << 31) - 1;
pub(crate) const FIRST_WINDOW: u32 = 65_535;

/// The largest payload that a peer accepts by default.
pub(crate) const LARGEST_PAYLOAD: usize = 16_384;

const HEAD: usize = 9;

/// One frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Splits a complete frame off the received bytes, and returns it with its length.
    pub(crate) fn split(received: &'a [u8]) -> Option<(Self, usize)> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = received.first_chunk::<HEAD>()?;
        let length = HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = received.get(HEAD..length)?;
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        Some((Self { kind, flags, stream, payload }, length))
    }

    /// Returns whether the stream ends with this frame.
    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// Returns whether this client does not understand the frame.
    pub(crate) fn is_foreign(&self) -> bool {
        self.kind == DATA && self.flags & PADDED != 0
    }

    /// Returns the number at the start of a window update, a reset or similar.
    pub(crate) fn number(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// Iterates over the settings.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload.chunks_exact(6).filter_map(|entry| {
            let (id, value) = entry.split_first_chunk()?;
            Some((u16::from_be_bytes(*id), u32::from_be_bytes(*value.first_chunk()?)))
        })
    }
}

/// Writes a frame.
pub(crate) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend([a, b, c, kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// Writes the start of a connection: the preface, and windows that never block the server.
pub(crate) fn write_preface(out: &mut Vec<u8>) {
    out.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut settings = Vec::new();
    settings.extend(INITIAL_WINDOW_SIZE.to_be_bytes());
    settings.extend(LARGEST_WINDOW.to_be_bytes());
    write(out, SETTINGS, 0, 0, &settings);
    write(out, WINDOW_UPDATE, 0, 0, &(LARGEST_WINDOW - FIRST_WINDOW).to_be_bytes());
}

/// The header block of a call: in the form of the first call on a connection, and of the later ones,
/// which refer to the first one's entries in the server's table, as clients with a dynamic table do.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    pub(crate) first: Vec<u8>,
    pub(crate) later: Vec<u8>,
}

impl RequestHead {
    /// Encodes the header block of a call of `method`, as this caller.
    pub(crate) fn new(method: &str, authority: &str, secret: &str) -> Self {
        let fields: [(u8, &str, &str); 6] = [
            (4, ":path", &format!("/tokend.v1.TokenService/{method}")),
            (1, ":authority", authority),
            (31, "content-type", "application/grpc"),
            (0, "te", "trailers"),
            (23, "authorization", &format!("Bearer {secret}")),
            (58, "user-agent", "tokend-bench"),
        ];
        // Indexes of the static table: `:method: POST` and `:scheme: http`.
        let (mut first, mut later) = (vec![0x83, 0x86], vec![0x83, 0x86]);
        for (place, (name_index, name, value)) in (0u8..).zip(fields) {
            // A literal that is added to the table, with a name from the static table if that has it.
            first.push(0x40 | name_index);
            if name_index == 0 {
                text(&mut first, name);
            }
            text(&mut first, value);
            // The newest entry is number 62.
            later.push(0x80 | (62 + 5 - place));
        }
        Self { first, later }
    }
}

/// Writes a text of less than 127 bytes, without Huffman coding.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(126).min(126));
    out.extend(text.as_bytes());
}
