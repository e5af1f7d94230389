//! A token packed into one byte string: the wire encoding (protobuf) of the API's `Token` message, without
//! its state and last use, which are not part of the record. Stored in the cache, used by Verify for judging,
//! and copied into its response unchanged. A test next to the messages checks that both encodings are equal.

use time::OffsetDateTime;

use super::fields::OrganizationId;
use super::token::Token;

/// Tags of the wire format: field number × 8, plus 2 for length-delimited.
const ID: u32 = 1 << 3 | 2;
const ORGANIZATION_ID: u32 = 2 << 3 | 2;
const USER_ID: u32 = 3 << 3 | 2;
const NAME: u32 = 4 << 3 | 2;
const SCOPES: u32 = 5 << 3 | 2;
const LABELS: u32 = 6 << 3 | 2;
const ALLOWED_CIDRS: u32 = 7 << 3 | 2;
const CREATE_TIME: u32 = 9 << 3 | 2;
const CREATED_BY: u32 = 10 << 3 | 2;
const EXPIRE_TIME: u32 = 11 << 3 | 2;
const REVOKE_TIME: u32 = 13 << 3 | 2;
const REVOKE_REASON: u32 = 14 << 3 | 2;
const ROTATED_FROM: u32 = 15 << 3 | 2;
const DISABLE_TIME: u32 = 16 << 3 | 2;

/// The positions of the fields that judging needs in the packed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldPositions {
    organization: (u16, u16),
    scopes: (u16, u16),
    allowed_cidrs: (u16, u16),
}

/// The packed bytes, read in place.
#[derive(Debug, Clone, Copy)]
pub struct PackedToken<'a> {
    wire: &'a [u8],
    positions: FieldPositions,
}

impl FieldPositions {
    /// Packs a token. One within the limits of its fields is at most 22 KiB, so positions fit 16 bits.
    #[must_use]
    pub fn pack(token: &Token) -> (Self, Vec<u8>) {
        let mut wire = Vec::with_capacity(256);
        text(&mut wire, ID, &token.id.to_string());
        text(&mut wire, ORGANIZATION_ID, token.organization_id.as_str());
        let organization_end = wire.len();
        let organization_start = organization_end.saturating_sub(token.organization_id.as_str().len());
        text(&mut wire, USER_ID, token.user_id.as_str());
        text(&mut wire, NAME, token.name.as_str());
        let scopes_start = wire.len();
        for scope in token.scopes.iter() {
            text(&mut wire, SCOPES, scope.as_str());
        }
        let scopes_end = wire.len();
        for (key, value) in token.labels.iter() {
            label(&mut wire, key, value);
        }
        let cidrs_start = wire.len();
        for network in token.allowed_cidrs.iter() {
            text(&mut wire, ALLOWED_CIDRS, &network.to_string());
        }
        let cidrs_end = wire.len();
        time(&mut wire, CREATE_TIME, token.create_time);
        text(&mut wire, CREATED_BY, &token.created_by.to_string());
        if let Some(end) = token.expire_time {
            time(&mut wire, EXPIRE_TIME, end);
        }
        if let Some(revoked) = token.revoke_time {
            time(&mut wire, REVOKE_TIME, revoked);
        }
        if let Some(reason) = &token.revoke_reason {
            text(&mut wire, REVOKE_REASON, reason.as_str());
        }
        if let Some(id) = &token.rotated_from {
            text(&mut wire, ROTATED_FROM, &id.to_string());
        }
        if let Some(disabled) = token.disable_time {
            time(&mut wire, DISABLE_TIME, disabled);
        }
        let position = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let positions = Self {
            organization: (position(organization_start), position(organization_end)),
            scopes: (position(scopes_start), position(scopes_end)),
            allowed_cidrs: (position(cidrs_start), position(cidrs_end)),
        };
        (positions, wire)
    }

    /// Reads the bytes to which these positions belong.
    #[must_use]
    pub fn read(self, wire: &[u8]) -> PackedToken<'_> {
        PackedToken { wire, positions: self }
    }
}

impl<'a> PackedToken<'a> {
    /// Returns the bytes of the `Token` message, without its state and last use.
    #[must_use]
    pub fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Returns the text of the token's id.
    #[must_use]
    pub fn id(&self) -> &'a str {
        short_texts(self.wire).next().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// Returns the bytes of the organization's id.
    #[must_use]
    pub fn organization_id(&self) -> &'a [u8] {
        self.part(self.positions.organization)
    }

    /// Returns the bytes of the user's id.
    #[must_use]
    pub fn user_id(&self) -> &'a [u8] {
        let rest = self.wire.get(usize::from(self.positions.organization.1)..).unwrap_or_default();
        // A tag, then a length of one byte or, since it is at most 200, two.
        let (length, text) = match rest {
            [_, low, high, text @ ..] if *low >= 0x80 => {
                (usize::from(low & 0x7f) | usize::from(*high) << 7, text)
            }
            [_, length, text @ ..] => (usize::from(*length), text),
            _ => return &[],
        };
        text.get(..length).unwrap_or_default()
    }

    /// Returns whether the token belongs to this organization.
    #[must_use]
    pub fn lives_in(&self, organization: &OrganizationId) -> bool {
        self.organization_id() == organization.as_str().as_bytes()
    }

    /// Iterates over the scopes' texts.
    pub fn scopes(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        short_texts(self.part(self.positions.scopes))
    }

    /// Iterates over the networks' texts.
    pub fn allowed_cidrs(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        short_texts(self.part(self.positions.allowed_cidrs))
    }

    fn part(&self, (start, end): (u16, u16)) -> &'a [u8] {
        self.wire.get(usize::from(start)..usize::from(end)).unwrap_or_default()
    }
}

/// Iterates over a repeated field of texts of at most 127 bytes, as scopes and networks are.
fn short_texts(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        // A tag, then a length of one byte.
        let (&[_, length], rest) = wire.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(usize::from(length))?;
        wire = rest;
        Some(text)
    })
}

/// Writes a text field; an empty one is omitted, as in proto3.
fn text(wire: &mut Vec<u8>, tag: u32, text: &str) {
    if !text.is_empty() {
        bytes(wire, tag, text.as_bytes());
    }
}

fn bytes(wire: &mut Vec<u8>, tag: u32, content: &[u8]) {
    varint(wire, u64::from(tag));
    varint(wire, content.len() as u64);
    wire.extend_from_slice(content);
}

/// Writes a map entry: a message of key (1) and value (2).
fn label(wire: &mut Vec<u8>, key: &str, value: &str) {
    let mut entry = Vec::with_capacity(key.len().saturating_add(value.len()).saturating_add(6));
    text(&mut entry, 1 << 3 | 2, key);
    text(&mut entry, 2 << 3 | 2, value);
    bytes(wire, LABELS, &entry);
}

/// Writes a `google.protobuf.Timestamp`: seconds (1) and nanoseconds (2).
fn time(wire: &mut Vec<u8>, tag: u32, time: OffsetDateTime) {
    let mut message = Vec::with_capacity(16);
    if time.unix_timestamp() != 0 {
        message.push(1 << 3);
        varint(&mut message, time.unix_timestamp().cast_unsigned());
    }
    if time.nanosecond() != 0 {
        message.push(2 << 3);
        varint(&mut message, u64::from(time.nanosecond()));
    }
    bytes(wire, tag, &message);
}

fn varint(wire: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        wire.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    wire.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fields::UserId;
    use crate::domain::networks::{Network, Networks};
    use crate::fixtures::token;

    #[test]
    fn what_judging_needs_is_found_again() {
        let (positions, wire) = FieldPositions::pack(&token(&["a:*", "b"]));
        let packed = positions.read(&wire);
        assert_eq!(packed.id(), token(&[]).id.to_string());
        assert!(packed.lives_in(&OrganizationId::parse("acme").unwrap()));
        assert!(!packed.lives_in(&OrganizationId::parse("acm").unwrap()));
        for length in [1, 127, 128, 200] {
            let user_id = UserId::parse(&"u".repeat(length)).unwrap();
            let (positions, wire) = FieldPositions::pack(&Token { user_id: user_id.clone(), ..token(&[]) });
            assert_eq!(positions.read(&wire).user_id(), user_id.as_str().as_bytes());
        }
        assert_eq!(packed.scopes().collect::<Vec<_>>(), [&b"a:*"[..], b"b"]);
        let (positions, wire) = FieldPositions::pack(&token(&[]));
        assert_eq!(positions.read(&wire).scopes().count(), 0);
        assert_eq!(packed.allowed_cidrs().count(), 0);
        let mut bound = token(&["a"]);
        let networks = ["10.0.0.0/8", "2001:db8::/32"];
        bound.allowed_cidrs =
            Networks::new(networks.iter().map(|text| Network::parse(text).unwrap()).collect()).unwrap();
        let (positions, wire) = FieldPositions::pack(&bound);
        assert_eq!(positions.read(&wire).allowed_cidrs().collect::<Vec<_>>(), networks.map(str::as_bytes));
    }
}
