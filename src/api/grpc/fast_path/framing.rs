//! gRPC messages on the wire: each follows a compression flag and its length (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

#![cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "lengths of data in memory"))]

use prost::Message;
use prost::bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tonic::Status;

use crate::api::limits::MAX_REQUEST_BYTES;
use crate::api::status;

const PREFIX: usize = 5;
const UNCOMPRESSED: u8 = 0;

/// Appends a message with its prefix to `out`.
pub(super) fn write(message: &impl Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(PREFIX + length);
    out.put_u8(UNCOMPRESSED);
    // A response is at most as long as a record: some kilobytes.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(out);
}

/// Reads a message that fills these bytes exactly; `None` if it is not complete and valid.
pub(super) fn read_only<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = bytes.get(PREFIX..)?;
    let whole = split(bytes).ok()? == Some(message.len());
    if whole { M::decode(message).ok() } else { None }
}

/// The received bytes of a call's messages.
#[derive(Default)]
pub(super) struct Received(BytesMut);

impl Received {
    /// Appends received bytes.
    pub(super) fn add(&mut self, bytes: &Bytes) {
        self.0.extend_from_slice(bytes);
    }

    /// Returns how many bytes are buffered.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether [`Self::take`] would return a message or an error.
    pub(super) fn has_next(&self) -> bool {
        !matches!(split(&self.0), Ok(None))
    }

    /// Takes the next message; `None` while it is incomplete.
    ///
    /// # Errors
    /// The bytes are not a valid message; the text is tonic's.
    pub(super) fn take<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(length) = split(&self.0)? else { return Ok(None) };
        let message = M::decode(&self.0[PREFIX..PREFIX + length]);
        self.0.advance(PREFIX + length);
        message.map(Some).map_err(|error| status::undecodable(&error))
    }
}

/// Returns the length of the first message with its prefix, as the prefix states it, once that has
/// arrived; an error if the message is longer than `most` bytes.
pub(super) fn announced(bytes: &[u8], most: usize) -> Result<Option<usize>, Status> {
    let Some(([_, length @ ..], _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > most { Err(status::too_long(length, most)) } else { Ok(Some(PREFIX + length)) }
}

/// Returns the length of the first message, if all of it has arrived.
fn split(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some(([compressed, length @ ..], rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    if *compressed != UNCOMPRESSED {
        return Err(status::compressed(*compressed));
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_REQUEST_BYTES {
        return Err(status::too_long(length, MAX_REQUEST_BYTES));
    }
    Ok((length <= rest.len()).then_some(length))
}
