//! A token packed into one byte string: the wire encoding (protobuf) of the API's `Token` message, without
//! its state, last use and last refusal, which are not part of the record. Stored in the cache, used by Verify for judging,
//! and copied into its response unchanged. A test next to the messages checks that both encodings are equal.

use time::OffsetDateTime;

use super::fields::{FieldError, OrganizationId};
use super::grant::Grant;
use super::owner::OwnerKind;
use super::token::{Token, Value};

mod grant;
mod read;

/// The number of the field with the grant.
const GRANT: u64 = 18;

/// The number of the field with the plan.
const PLAN: u64 = 22;

/// The number of the field with the family.
const FAMILY: u64 = 23;

/// The field of the last use, which is not part of the record.
const LAST_USE_TIME: &str = "last_use_time";

/// The positions of the fields that judging needs in the packed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// Packs a token. One within the limits of its fields is at most 27 KiB, so positions fit 16 bits.
    #[must_use]
    pub fn pack(token: &Token) -> (Self, Vec<u8>) {
        let (mut positions, mut wire) = (Self::default(), Vec::with_capacity(256));
        let position = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        for field in token.fields() {
            let start = position(wire.len());
            // Of the wire format: length-delimited, as all these fields are.
            let tag = field.number << 3 | 2;
            match &field.value {
                Value::Text(value) => text(&mut wire, tag, value),
                Value::Scopes(scopes) => scopes.iter().for_each(|scope| text(&mut wire, tag, scope.as_str())),
                Value::Networks(networks) => {
                    networks.iter().for_each(|network| text(&mut wire, tag, &network.to_string()));
                }
                Value::Labels(labels) => {
                    labels.iter().for_each(|(key, value)| label(&mut wire, tag, key, value));
                }
                Value::OwnerKind(kind) => {
                    // Of the wire format: a varint.
                    varint(&mut wire, u64::from(field.number << 3));
                    varint(&mut wire, u64::from(kind.number()));
                }
                Value::Time(Some(value)) if field.name != LAST_USE_TIME => time(&mut wire, tag, *value),
                Value::Grant(Some(value)) => grant::write(&mut wire, tag, value),
                Value::Time(_) | Value::Grant(None) | Value::Refusal(_) => {}
            }
            let end = position(wire.len());
            match field.name {
                "organization_id" => {
                    let length = position(token.organization_id.as_str().len());
                    positions.organization = (end.saturating_sub(length), end);
                }
                "scopes" => positions.scopes = (start, end),
                "allowed_cidrs" => positions.allowed_cidrs = (start, end),
                _ => {}
            }
        }
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

    /// Returns what the user's id names. Its field is the last one, and each token has it.
    #[must_use]
    pub fn owner_kind(&self) -> OwnerKind {
        let number = self.wire.last().copied().unwrap_or_default();
        OwnerKind::ALL.into_iter().find(|kind| kind.number() == number).unwrap_or_default()
    }

    /// Returns whether the token belongs to this organization.
    #[must_use]
    pub fn belongs_to(&self, organization: &OrganizationId) -> bool {
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

    /// Reads the grant; `None`: the token has none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn grant(&self) -> Result<Option<Grant>, FieldError> {
        grant::find(self.after_networks(), GRANT)
    }

    /// Returns the name of the plan; `None`: the token has none.
    #[must_use]
    pub fn plan(&self) -> Option<&'a str> {
        Some(read::text(self.after_networks(), PLAN)).filter(|name| !name.is_empty())
    }

    /// Returns the text of the id of the token's family, which no rotation changes.
    #[must_use]
    pub fn family_id(&self) -> &'a str {
        let family = read::text(self.after_networks(), FAMILY);
        if family.is_empty() { self.id() } else { family }
    }

    fn after_networks(&self) -> &'a [u8] {
        self.wire.get(usize::from(self.positions.allowed_cidrs.1)..).unwrap_or_default()
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
fn label(wire: &mut Vec<u8>, tag: u32, key: &str, value: &str) {
    let mut entry = Vec::with_capacity(key.len().saturating_add(value.len()).saturating_add(6));
    text(&mut entry, 1 << 3 | 2, key);
    text(&mut entry, 2 << 3 | 2, value);
    bytes(wire, tag, &entry);
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
    use crate::domain::plan::PlanName;
    use crate::fixtures::token;
    use crate::secret::TokenId;

    #[test]
    fn packed_fields_are_found_again() {
        let (positions, wire) = FieldPositions::pack(&token(&["a:*", "b"]));
        let packed = positions.read(&wire);
        assert_eq!(packed.id(), token(&[]).id.to_string());
        assert!(packed.belongs_to(&OrganizationId::parse("acme").unwrap()));
        assert!(!packed.belongs_to(&OrganizationId::parse("acm").unwrap()));
        for length in [1, 127, 128, 200] {
            let user_id = UserId::parse(&"u".repeat(length)).unwrap();
            let (positions, wire) = FieldPositions::pack(&Token { user_id: user_id.clone(), ..token(&[]) });
            assert_eq!(positions.read(&wire).user_id(), user_id.as_str().as_bytes());
        }
        for owner_kind in OwnerKind::ALL {
            let (positions, wire) = FieldPositions::pack(&Token { owner_kind, ..token(&[]) });
            assert_eq!(positions.read(&wire).owner_kind(), owner_kind);
        }
        assert_eq!((packed.plan(), packed.family_id()), (None, packed.id()));
        let plan = Some(PlanName::parse(&"p".repeat(63)).unwrap());
        let family_id = TokenId::from_bytes([9; 16]);
        let (positions, wire) =
            FieldPositions::pack(&Token { plan, family_id: Some(family_id), ..token(&["a"]) });
        let limited = positions.read(&wire);
        assert_eq!(limited.plan(), Some(&*"p".repeat(63)));
        assert_eq!(limited.family_id(), family_id.to_string());
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
