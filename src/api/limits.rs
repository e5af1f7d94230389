//! How much of a request is read, over gRPC and HTTP alike.

/// The largest request message that is read, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// The most bytes of metadata of a call, and of the head of an HTTP/1 request.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;
