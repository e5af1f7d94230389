//! Verify's response, encoded directly from the cached record without building a message or
//! allocating. build.rs makes the server use these types instead of the generated ones; a test
//! compares the two encodings. Only ever encoded, never decoded.

#![cfg_attr(not(test), expect(clippy::arithmetic_side_effects, reason = "lengths of data in memory"))]

use prost::bytes::{Buf, BufMut};
use prost::encoding::{
    DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, int32, message,
};
use prost::{DecodeError, Message};
use prost_types::Timestamp;

use super::fields::{proto_duration, timestamp};
use super::limits;
use crate::api::proto;
use crate::domain::{Record, Scope, TokenState};
use crate::limits::Spending;
use crate::verify::Verification;

/// The field numbers of `VerifyResponse`, and that of `Token.state`.
const VERDICT: u32 = 1;
const TOKEN: u32 = 2;
const MISSING_SCOPES: u32 = 3;
const AS_OF_TIME: u32 = 4;
const LIMITS: u32 = 5;
const RETRY_AFTER: u32 = 6;
const STATE: u32 = 8;

/// The field number of `VerifyStreamResponse.response`.
const RESPONSE: u32 = 1;

/// A `VerifyResponse`.
#[derive(Debug, Default)]
pub struct VerifyReply {
    verdict: i32,
    token: Option<(Record, TokenState)>,
    missing_scopes: Vec<Scope>,
    as_of_time: Option<Timestamp>,
    spending: Option<Box<Spending>>,
}

/// A `VerifyStreamResponse`.
#[derive(Debug, Default)]
pub struct VerifyStreamReply(pub(super) VerifyReply);

impl From<Verification> for VerifyReply {
    fn from(answer: Verification) -> Self {
        Self {
            verdict: proto::Verdict::from(answer.verdict).into(),
            token: answer.token,
            missing_scopes: answer.missing_scopes,
            as_of_time: answer.as_of.map(timestamp),
            spending: answer.spending,
        }
    }
}

impl VerifyReply {
    fn encode_token(&self, buffer: &mut impl BufMut) {
        let Some((record, state)) = &self.token else { return };
        encode_key(TOKEN, WireType::LengthDelimited, buffer);
        encode_varint(token_len(record, *state) as u64, buffer);
        buffer.put_slice(record.packed().wire());
        int32::encode(STATE, &proto::TokenState::from(*state).into(), buffer);
    }
}

fn token_len(record: &Record, state: TokenState) -> usize {
    record.packed().wire().len() + int32::encoded_len(STATE, &proto::TokenState::from(state).into())
}

fn delimited_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn encode_spending(spending: &Spending, buffer: &mut impl BufMut) {
    for limit in &spending.limits {
        encode_key(LIMITS, WireType::LengthDelimited, buffer);
        encode_varint(limits::len(limit) as u64, buffer);
        limits::encode(limit, buffer);
    }
    if let Some(time) = spending.retry_after {
        message::encode(RETRY_AFTER, &proto_duration(time), buffer);
    }
}

fn spending_len(spending: &Spending) -> usize {
    let limits: usize = spending.limits.iter().map(|limit| delimited_len(limits::len(limit))).sum();
    let retry_after =
        spending.retry_after.map(|time| message::encoded_len(RETRY_AFTER, &proto_duration(time)));
    limits + retry_after.unwrap_or_default()
}

/// What [`Message`] asks for besides encoding.
macro_rules! never_decoded {
    () => {
        fn merge_field(
            &mut self,
            tag: u32,
            wire_type: WireType,
            buffer: &mut impl Buf,
            context: DecodeContext,
        ) -> Result<(), DecodeError> {
            prost::encoding::skip_field(wire_type, tag, buffer, context)
        }

        fn clear(&mut self) {
            *self = Self::default();
        }
    };
}

impl Message for VerifyReply {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if self.verdict != 0 {
            int32::encode(VERDICT, &self.verdict, buffer);
        }
        self.encode_token(buffer);
        for scope in &self.missing_scopes {
            encode_key(MISSING_SCOPES, WireType::LengthDelimited, buffer);
            encode_varint(scope.as_str().len() as u64, buffer);
            buffer.put_slice(scope.as_str().as_bytes());
        }
        if let Some(time) = &self.as_of_time {
            message::encode(AS_OF_TIME, time, buffer);
        }
        if let Some(spending) = &self.spending {
            encode_spending(spending, buffer);
        }
    }

    fn encoded_len(&self) -> usize {
        let verdict = if self.verdict == 0 { 0 } else { int32::encoded_len(VERDICT, &self.verdict) };
        let token = self.token.as_ref().map_or(0, |(record, state)| delimited_len(token_len(record, *state)));
        let scopes: usize = self.missing_scopes.iter().map(|scope| delimited_len(scope.as_str().len())).sum();
        let time = self.as_of_time.as_ref().map_or(0, |time| message::encoded_len(AS_OF_TIME, time));
        let spending = self.spending.as_ref().map_or(0, |spending| spending_len(spending));
        verdict + token + scopes + time + spending
    }

    never_decoded!();
}

impl Message for VerifyStreamReply {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        message::encode(RESPONSE, &self.0, buffer);
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len(RESPONSE, &self.0)
    }

    never_decoded!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Labels, Network, Networks, RevokeReason, Token, Verdict};
    use crate::limits::{LimitStatus, StatusKind};
    use crate::secret::{KeyId, Mac};
    use std::time::Duration as StdDuration;
    use time::{Duration, OffsetDateTime};
    use tokend_core::fixtures::token;

    /// Encodes a response about this token, and decodes it as a client does.
    fn answered(token: &Token, now: OffsetDateTime, missing: &[&str]) -> proto::VerifyResponse {
        let record = Record::new(token, Mac { key_id: KeyId::from_bytes([0; 8]), tag: [0; 32] });
        let state = record.state(now);
        let answer = Verification {
            verdict: Verdict::MissingScope,
            token: Some((record, state)),
            missing_scopes: missing.iter().map(|text| Scope::parse(text).unwrap()).collect(),
            as_of: Some(now),
            spending: None,
        };
        let reply = VerifyStreamReply(answer.into());
        let bytes = reply.encode_to_vec();
        assert_eq!(bytes.len(), reply.encoded_len());
        proto::VerifyStreamResponse::decode(&*bytes).unwrap().response.unwrap()
    }

    #[test]
    fn an_encoded_answer_decodes_as_the_message_of_the_contract() {
        let mut full = token(&["a:*", "b"]);
        let now = full.create_time + Duration::days(1);
        let labels = [("team", "x"), ("empty", "")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        full.labels = Labels::parse(labels).unwrap();
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|text| Network::parse(text).unwrap());
        full.allowed_cidrs = Networks::new(networks.to_vec()).unwrap();
        full.expire_time = Some(now + Duration::nanoseconds(1_500_000_000));
        let mut revoked = full.clone();
        revoked.rotated_from = Some(crate::secret::TokenId::from_bytes([8; 16]));
        revoked.disable_time = Some(now - Duration::seconds(3));
        revoked.revoke_time = Some(now - Duration::microseconds(7));
        revoked.revoke_reason = Some(RevokeReason::parse(&"long ".repeat(60)).unwrap());
        for token in [token(&[]), full, revoked] {
            let expected = proto::VerifyResponse {
                verdict: proto::Verdict::MissingScope.into(),
                token: Some((&token, now).into()),
                missing_scopes: vec!["x:y".to_owned(), "z".to_owned()],
                as_of_time: Some(timestamp(now)),
                ..proto::VerifyResponse::default()
            };
            assert_eq!(answered(&token, now, &["x:y", "z"]), expected);
        }
    }

    #[test]
    fn an_answer_without_a_token_is_its_verdict_and_time() {
        let answer = Verification {
            verdict: Verdict::Malformed,
            token: None,
            missing_scopes: Vec::new(),
            as_of: None,
            spending: None,
        };
        let bytes = VerifyReply::from(answer).encode_to_vec();
        let expected =
            proto::VerifyResponse { verdict: proto::Verdict::Malformed.into(), ..Default::default() };
        assert_eq!(proto::VerifyResponse::decode(&*bytes).unwrap(), expected);
    }

    #[test]
    fn an_answer_about_limits_decodes_as_the_message_of_the_contract() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::nanoseconds(1_800_000_000_000_000_001);
        let rate = LimitStatus {
            name: "reads".into(),
            kind: StatusKind::Rate,
            limit: i64::MAX,
            remaining: 0,
            reset_time: Some(now),
            admitted_in_outage: true,
            window: Some(StdDuration::from_millis(60_500)),
        };
        let credits = LimitStatus {
            name: "x".repeat(63).into(),
            kind: StatusKind::Credits,
            limit: 0,
            remaining: 300,
            reset_time: None,
            admitted_in_outage: false,
            window: None,
        };
        for retry_after in [None, Some(StdDuration::ZERO), Some(StdDuration::from_nanos(1_000_000_007))] {
            let limits = vec![rate.clone(), credits.clone()];
            let answer = Verification {
                verdict: Verdict::RateLimited,
                token: None,
                missing_scopes: Vec::new(),
                as_of: None,
                spending: Some(Box::new(Spending { limits, retry_after })),
            };
            let reply = VerifyReply::from(answer);
            let bytes = reply.encode_to_vec();
            assert_eq!(bytes.len(), reply.encoded_len());
            let limits = [&rate, &credits].map(|limit| proto::LimitStatus {
                name: limit.name.to_string(),
                kind: match limit.kind {
                    StatusKind::Rate => proto::LimitKind::Rate.into(),
                    StatusKind::Credits => proto::LimitKind::Credits.into(),
                },
                limit: limit.limit,
                remaining: limit.remaining,
                reset_time: limit.reset_time.map(timestamp),
                admitted_in_outage: limit.admitted_in_outage,
                window: limit.window.map(proto_duration),
            });
            let expected = proto::VerifyResponse {
                verdict: proto::Verdict::RateLimited.into(),
                limits: limits.to_vec(),
                retry_after: retry_after.map(proto_duration),
                ..proto::VerifyResponse::default()
            };
            assert_eq!(bytes, expected.encode_to_vec(), "the same bytes as the generated message");
            assert_eq!(proto::VerifyResponse::decode(&*bytes).unwrap(), expected);
        }
    }
}
