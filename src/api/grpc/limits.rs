//! The state of a limit, encoded as the contract's `LimitStatus` without building the message. Called by `reply`.
//! Knows nothing of how limits are counted.

#![cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "lengths of data in memory"))]

use prost::bytes::BufMut;
use prost::encoding::{WireType, bool, encode_key, encode_varint, encoded_len_varint, int32, int64, message};

use super::fields::{proto_duration, timestamp};
use crate::api::proto::{self, LimitKind};
use crate::limits::{LimitStatus, StatusKind};

/// The field numbers of `LimitStatus`.
const NAME: u32 = 1;
const KIND: u32 = 2;
const LIMIT: u32 = 3;
const REMAINING: u32 = 4;
const RESET_TIME: u32 = 5;
const ADMITTED_IN_OUTAGE: u32 = 6;
const WINDOW: u32 = 7;

fn kind(limit: &LimitStatus) -> i32 {
    match limit.kind {
        StatusKind::Rate => LimitKind::Rate.into(),
        StatusKind::Credits => LimitKind::Credits.into(),
    }
}

/// Returns the message.
pub(super) fn message(limit: &LimitStatus) -> proto::LimitStatus {
    proto::LimitStatus {
        name: limit.name.to_string(),
        kind: kind(limit),
        limit: limit.limit,
        remaining: limit.remaining,
        reset_time: limit.reset_time.map(timestamp),
        admitted_in_outage: limit.admitted_in_outage,
        window: limit.window.map(proto_duration),
    }
}

/// Writes the fields of a message.
pub(super) fn encode(limit: &LimitStatus, buffer: &mut impl BufMut) {
    encode_key(NAME, WireType::LengthDelimited, buffer);
    encode_varint(limit.name.len() as u64, buffer);
    buffer.put_slice(limit.name.as_bytes());
    int32::encode(KIND, &kind(limit), buffer);
    if limit.limit != 0 {
        int64::encode(LIMIT, &limit.limit, buffer);
    }
    if limit.remaining != 0 {
        int64::encode(REMAINING, &limit.remaining, buffer);
    }
    if let Some(time) = limit.reset_time {
        message::encode(RESET_TIME, &timestamp(time), buffer);
    }
    if limit.admitted_in_outage {
        bool::encode(ADMITTED_IN_OUTAGE, &true, buffer);
    }
    if let Some(window) = limit.window {
        message::encode(WINDOW, &proto_duration(window), buffer);
    }
}

/// Returns the number of bytes that [`encode`] writes.
pub(super) fn len(limit: &LimitStatus) -> usize {
    let name = 1 + encoded_len_varint(limit.name.len() as u64) + limit.name.len();
    let kind = int32::encoded_len(KIND, &kind(limit));
    let most = if limit.limit == 0 { 0 } else { int64::encoded_len(LIMIT, &limit.limit) };
    let left = if limit.remaining == 0 { 0 } else { int64::encoded_len(REMAINING, &limit.remaining) };
    let reset = limit.reset_time.map_or(0, |time| message::encoded_len(RESET_TIME, &timestamp(time)));
    let outage = if limit.admitted_in_outage { bool::encoded_len(ADMITTED_IN_OUTAGE, &true) } else { 0 };
    let window = limit.window.map_or(0, |window| message::encoded_len(WINDOW, &proto_duration(window)));
    name + kind + most + left + reset + outage + window
}
