//! Refusals reserve memory until they are read, as responses do (`admission::response_memory`). A
//! status is sent in headers, which flow control does not hold back; so one header value owns the
//! reservation and drops it once written. Called for all responses.

#![cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "lengths of data in memory"))]

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use tonic::Status;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

use crate::admission::response_memory::{ResponseMemory, reserved_bytes};
use crate::api::status;
use crate::verify::ClientKey;

/// The headers of a status, the longest first.
static HEADERS: [HeaderName; 3] = [Status::GRPC_STATUS_DETAILS, Status::GRPC_MESSAGE, Status::GRPC_STATUS];

/// The size of a header in addition to its name and value, in bytes (RFC 7541, 4.1).
const OVERHEAD: usize = 32;

/// The status for a peer that leaves its refusals unread. All such responses share its bytes, so it
/// reserves no memory.
static UNREAD: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = HeaderMap::new();
    // Fails only for text that is not ASCII.
    let _ = status::refusals_unread().add_header(&mut headers);
    headers
});

/// Reserves memory for the refusals of one connection.
#[derive(Debug)]
pub(in crate::api::grpc) struct RefusalMemory {
    memory: Arc<ResponseMemory>,
    peer: IpAddr,
}

impl RefusalMemory {
    /// Reserves memory for this peer's refusals in `memory`.
    pub(super) fn new(memory: Arc<ResponseMemory>, peer: IpAddr) -> Self {
        Self { memory, peer }
    }

    /// Reserves memory for the status in these headers, if there is one and it is not OK.
    pub(super) fn hold(&self, headers: &mut HeaderMap) {
        hold(headers, &self.memory, self.peer);
    }
}

fn hold(headers: &mut HeaderMap, response_memory: &ResponseMemory, peer: IpAddr) {
    if headers.get(Status::GRPC_STATUS).is_none_or(|code| code == "0") {
        return;
    }
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + OVERHEAD;
    let bytes = headers.iter().map(size).sum();
    match response_memory.reserve_for_refusal(ClientKey::peer(Some(peer)), bytes) {
        Ok(reservation) => {
            let longest = HEADERS.iter().find(|name| headers.contains_key(*name));
            let Some(value) = longest.and_then(|name| headers.get_mut(name)) else { return };
            if let Ok(mut held) =
                HeaderValue::from_maybe_shared(reserved_bytes(value.as_bytes(), vec![reservation]))
            {
                // Without this, HPACK's table would keep it as long as the connection.
                held.set_sensitive(true);
                *value = held;
            }
        }
        Err(_) => headers.extend(UNREAD.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::metrics::Metrics;
    use tonic_types::StatusExt as _;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    fn headers(status: &Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
    }

    #[test]
    fn a_refusal_reserves_memory_until_its_headers_are_dropped() {
        let response_memory =
            ResponseMemory::new(10_000, 1, Metrics::new().unwrap().work.response_memory.clone());
        for status in [status::shutting_down(), Status::internal("as tonic"), Status::not_found("")] {
            let mut held = headers(&status);
            hold(&mut held, &response_memory, PEER);
            assert!(response_memory.taken() > 0, "{status:?}");
            let read = Status::from_header_map(&held).unwrap();
            assert_eq!((read.code(), read.message()), (status.code(), status.message()));
            assert_eq!(read.details(), status.details());
            drop(held);
            assert_eq!(response_memory.taken(), 0);
        }
        let mut ok = headers(&Status::ok(""));
        hold(&mut ok, &response_memory, PEER);
        assert_eq!(response_memory.taken(), 0);
    }

    #[test]
    fn without_memory_for_a_refusal_a_shorter_one_is_sent() {
        let response_memory =
            ResponseMemory::new(100, 1, Metrics::new().unwrap().work.response_memory.clone());
        let mut held = headers(&status::shutting_down());
        hold(&mut held, &response_memory, PEER);
        let status = Status::from_header_map(&held).unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.get_details_error_info().unwrap().reason, "CALLER_OVER_SHARE");
        assert_eq!(response_memory.taken(), 0);
    }
}
