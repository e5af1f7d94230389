//! The requests, as bytes ready to send: gRPC's frame header and the message, all of one size. Used by
//! `load`.

use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{Consistency, CreateTokenRequest, Verdict, VerifyRequest, VerifyStreamRequest};

use super::connection::Mode;

/// The scope that every request requires.
pub(crate) const REQUIRED_SCOPE: &str = "reports:read";

/// Encoded requests.
#[derive(Debug)]
pub(crate) struct Workload {
    bytes: Vec<u8>,
    size: usize,
    method: &'static str,
    verdict: Option<Verdict>,
    pick: Pick,
    /// The next request in turn.
    turn: AtomicU64,
}

/// How the next request is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// At random, forever.
    Random,
    /// Each once, then none.
    EachOnce,
    /// One after the other, forever; a load continues where the one before ended.
    InTurn,
}

/// The position of a load in its requests.
#[derive(Debug)]
pub(crate) struct Order {
    pick: Pick,
    count: usize,
    state: u64,
    before: u64,
}

impl Workload {
    /// Encodes a request for every secret; `verdict` is the expected one of each.
    pub(crate) fn new<'a>(
        secrets: impl IntoIterator<Item = &'a str>,
        consistency: Consistency,
        mode: Mode,
        verdict: Verdict,
        pick: Pick,
    ) -> Self {
        let method = if mode == Mode::Stream { "VerifyStream" } else { "Verify" };
        let messages = secrets.into_iter().map(|secret| {
            let mut request = VerifyRequest {
                secret: secret.to_owned(),
                required_scopes: vec![REQUIRED_SCOPE.to_owned()],
                ..Default::default()
            };
            request.set_consistency(consistency);
            match mode {
                Mode::Unary => request.encode_to_vec(),
                Mode::Stream => VerifyStreamRequest { request: Some(request) }.encode_to_vec(),
            }
        });
        Self::framed(messages, method, Some(verdict), pick)
    }

    /// Encodes the creation of a token.
    pub(crate) fn create() -> Self {
        let request = CreateTokenRequest {
            user_id: "user-000001".to_owned(),
            name: "made under load".to_owned(),
            expiration: Some(Expiration::Ttl(prost_types::Duration { seconds: 3_600, nanos: 0 })),
            scopes: vec![REQUIRED_SCOPE.to_owned()],
            ..Default::default()
        };
        Self::framed([request.encode_to_vec()], "CreateToken", None, Pick::Random)
    }

    fn framed(
        messages: impl IntoIterator<Item = Vec<u8>>,
        method: &'static str,
        verdict: Option<Verdict>,
        pick: Pick,
    ) -> Self {
        let (mut bytes, mut size) = (Vec::new(), 0);
        for message in messages {
            size = 5 + message.len();
            bytes.push(0);
            bytes.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
            bytes.extend(message);
        }
        Self { bytes, size, method, verdict, pick, turn: AtomicU64::new(0) }
    }

    /// Returns the RPC's name.
    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// Returns the size of each request in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Returns the expected verdict as its protobuf number.
    pub(crate) fn verdict(&self) -> Option<u8> {
        u8::try_from(i32::from(self.verdict?)).ok()
    }

    /// Starts an iteration over the requests.
    pub(crate) fn order(&self) -> Order {
        let state = match self.pick {
            Pick::Random => 0x9e37_79b9_7f4a_7c15,
            Pick::EachOnce => 0,
            Pick::InTurn => self.turn.load(Ordering::Relaxed),
        };
        Order { pick: self.pick, count: self.bytes.len() / self.size, state, before: state }
    }
}

impl Order {
    /// Returns whether no request is left.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.pick == Pick::EachOnce && self.state >= self.count as u64
    }

    /// Returns the next request.
    pub(crate) fn next<'a>(&mut self, workload: &'a Workload) -> Option<&'a [u8]> {
        if self.is_exhausted() {
            return None;
        }
        self.before = self.state;
        let place = match self.pick {
            Pick::EachOnce => {
                self.state += 1;
                self.before
            }
            Pick::InTurn => {
                self.state += 1;
                workload.turn.store(self.state, Ordering::Relaxed);
                self.before % self.count as u64
            }
            // Xorshift (Marsaglia, 2003).
            Pick::Random => {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.state % self.count as u64
            }
        };
        let place = usize::try_from(place).unwrap_or(0) * workload.size;
        workload.bytes.get(place..place + workload.size)
    }

    /// Makes `next` return the last request again.
    pub(crate) fn put_back(&mut self) {
        self.state = self.before;
    }
}
