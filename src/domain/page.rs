//! Pages of a listing: its filters, where a page ended, and the opaque token that passes this position
//! to the next call. A page token is authenticated together with its filters, so that no other listing
//! accepts it. Called by the list action and the store. Knows no SQL.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use super::fields::{FieldError, OrganizationId, UserId};
use super::owner::OwnerKind;
use super::token::{Token, TokenState};
use crate::secret::{Keyring, TokenId};

/// The page size when the request gives none.
pub const DEFAULT_PAGE_SIZE: u32 = 50;

/// The maximum page size; larger requests are lowered to this.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    CreateTimeDescending,
    /// Soonest to expire first; tokens that never expire come last.
    ExpireTime,
}

/// The filters and the order of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Only this organization's; `None`: all organizations.
    pub organization_id: Option<OrganizationId>,
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// Only those whose owner is of this kind.
    pub owner_kind: Option<OwnerKind>,
    /// Only those in one of these states; empty: in any state.
    pub states: Vec<TokenState>,
    /// Only those created at this time or later. All times here are whole microseconds.
    pub created_after: Option<OffsetDateTime>,
    /// Only those created before this time.
    pub created_before: Option<OffsetDateTime>,
    /// Only those that expire before this time.
    pub expires_before: Option<OffsetDateTime>,
    /// Only those created before this time and not used since.
    pub unused_since: Option<OffsetDateTime>,
    /// Only those that were refused at this time or later.
    pub refused_after: Option<OffsetDateTime>,
    /// Only those that were never used.
    pub never_used: bool,
    /// Only those with this in their name.
    pub name_contains: Option<NamePart>,
    /// Their order.
    pub order: Order,
}

/// A part of a name to search for: 1 to 100 characters, no control characters. The case of ASCII
/// letters does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePart(Box<str>);

impl NamePart {
    /// Accepts a text within the limits.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.chars().count() > 100 {
            return Err(FieldError::TooLong { limit: 100, unit: "characters" });
        }
        if text.chars().any(char::is_control) {
            return Err(FieldError::ControlCharacter);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// Returns the text with its ASCII letters in lower case.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.0
    }
}

/// The position of the last token of a page in the listing's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its `create_time`, or its `expire_time` (`None`: never), depending on the order.
    pub time: Option<OffsetDateTime>,
    /// Its id, which decides between equal times.
    pub id: TokenId,
}

/// The page token was made by another service or for other filters, or was altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token does not come from this listing with these filters; begin without a page token")]
pub struct PageTokenError;

const VERSION: u8 = 1;
const TIME_NEVER: i64 = i64::MAX;
const PAYLOAD: usize = 1 + 8 + 16;
const TAG: usize = 16;

impl Listing {
    /// Returns the listing of all tokens of an organization, newest first; `None`: of all organizations.
    #[must_use]
    pub fn all(organization_id: Option<OrganizationId>) -> Self {
        Self {
            organization_id,
            user_id: None,
            owner_kind: None,
            states: Vec::new(),
            created_after: None,
            created_before: None,
            expires_before: None,
            unused_since: None,
            refused_after: None,
            never_used: false,
            name_contains: None,
            order: Order::CreateTimeDescending,
        }
    }

    /// Returns the position after a page that ends with `token`.
    #[must_use]
    pub fn position_of(&self, token: &Token) -> Position {
        let time = match self.order {
            Order::CreateTimeDescending => Some(token.create_time),
            Order::ExpireTime => token.expire_time,
        };
        Position { time, id: token.id }
    }

    /// Encodes the page token that continues after `position`.
    #[must_use]
    pub fn page_token(&self, position: &Position, keyring: &Keyring) -> String {
        position.page_token(&self.filters(), keyring)
    }

    /// Decodes a page token that this listing encoded.
    ///
    /// # Errors
    /// [`PageTokenError`] for any other text.
    pub fn parse_page_token(&self, text: &str, keyring: &Keyring) -> Result<Position, PageTokenError> {
        Position::parse_page_token(text, &self.filters(), keyring)
    }

    /// Returns every filter, each preceded by its presence and its length.
    fn filters(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut part = |part: Option<&[u8]>| match part {
            None => bytes.push(0),
            Some(part) => {
                bytes.push(1);
                bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
                bytes.extend_from_slice(part);
            }
        };
        part(self.organization_id.as_ref().map(|id| id.as_str().as_bytes()));
        part(self.user_id.as_ref().map(|id| id.as_str().as_bytes()));
        let has = |state| u8::from(self.states.contains(&state));
        part(Some(&[
            has(TokenState::Active),
            has(TokenState::Expired),
            has(TokenState::Revoked),
            has(TokenState::Disabled),
            match self.order {
                Order::CreateTimeDescending => 0,
                Order::ExpireTime => 1,
            },
        ]));
        for time in [
            self.created_after,
            self.created_before,
            self.expires_before,
            self.unused_since,
            self.refused_after,
        ] {
            part(time.map(|time| unix_micros(time).to_be_bytes()).as_ref().map(<[u8; 8]>::as_slice));
        }
        part(self.name_contains.as_ref().map(|part| part.folded().as_bytes()));
        part(self.owner_kind.map(|kind| kind.word().as_bytes()));
        part(Some(&[u8::from(self.never_used)]));
        bytes
    }
}

impl Position {
    /// Encodes the page token that continues after this position, valid only with these filters.
    #[must_use]
    pub fn page_token(&self, filters: &[u8], keyring: &Keyring) -> String {
        let mut bytes = [0; PAYLOAD + TAG];
        bytes[0] = VERSION;
        let micros = self.time.map_or(TIME_NEVER, unix_micros);
        bytes[1..9].copy_from_slice(&micros.to_be_bytes());
        bytes[9..PAYLOAD].copy_from_slice(&self.id.to_bytes());
        let tag = keyring.sign_page(&[&bytes[..PAYLOAD], filters].concat());
        bytes[PAYLOAD..].copy_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes a page token that was encoded for these filters.
    ///
    /// # Errors
    /// [`PageTokenError`] for any other text.
    pub fn parse_page_token(text: &str, filters: &[u8], keyring: &Keyring) -> Result<Self, PageTokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PageTokenError)?;
        let (payload, tag) = bytes.split_at_checked(PAYLOAD).ok_or(PageTokenError)?;
        let tag: &[u8; TAG] = tag.try_into().map_err(|_| PageTokenError)?;
        if !keyring.verify_page(&[payload, filters].concat(), tag) {
            return Err(PageTokenError);
        }
        let (&[VERSION], rest) = payload.split_first_chunk().ok_or(PageTokenError)? else {
            return Err(PageTokenError);
        };
        let (micros, rest) = rest.split_first_chunk().ok_or(PageTokenError)?;
        let (id, _) = rest.split_first_chunk().ok_or(PageTokenError)?;
        let time = match i64::from_be_bytes(*micros) {
            TIME_NEVER => None,
            micros => Some(
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros).saturating_mul(1_000))
                    .map_err(|_| PageTokenError)?,
            ),
        };
        Ok(Self { time, id: TokenId::from_bytes(*id) })
    }
}

fn unix_micros(time: OffsetDateTime) -> i64 {
    // Years -9999 to 9999 in microseconds fit: 3 × 10^17.
    i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(TIME_NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn keyring(byte: u8) -> Keyring {
        let entry = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        Keyring::parse(&entry).unwrap()
    }

    fn listing() -> Listing {
        let acme = OrganizationId::parse("acme").unwrap();
        Listing { states: vec![TokenState::Active], ..Listing::all(Some(acme)) }
    }

    fn positions() -> [Position; 2] {
        let id = TokenId::from_bytes([3; 16]);
        let time = datetime!(2026-03-01 12:00:00.123_456 UTC);
        [Position { time: Some(time), id }, Position { time: None, id }]
    }

    #[test]
    fn a_page_token_reads_back_as_its_position() {
        for position in positions() {
            let text = listing().page_token(&position, &keyring(1));
            assert_eq!(listing().parse_page_token(&text, &keyring(1)), Ok(position));
        }
    }

    #[test]
    fn a_page_token_is_refused_by_another_listing() {
        let text = listing().page_token(&positions()[0], &keyring(1));
        let others = [
            Listing { organization_id: None, ..listing() },
            Listing { organization_id: Some(OrganizationId::parse("b").unwrap()), ..listing() },
            Listing { user_id: Some(UserId::parse("acme").unwrap()), ..listing() },
            Listing { owner_kind: Some(OwnerKind::Service), ..listing() },
            Listing { states: vec![], ..listing() },
            Listing { order: Order::ExpireTime, ..listing() },
            Listing { created_after: positions()[0].time, ..listing() },
            Listing { created_before: positions()[0].time, ..listing() },
            Listing { expires_before: positions()[0].time, ..listing() },
            Listing { unused_since: positions()[0].time, ..listing() },
            Listing { refused_after: positions()[0].time, ..listing() },
            Listing { never_used: true, ..listing() },
            Listing { name_contains: Some(NamePart::parse("acme").unwrap()), ..listing() },
        ];
        for other in others {
            assert_eq!(other.parse_page_token(&text, &keyring(1)), Err(PageTokenError));
        }
        assert_eq!(listing().parse_page_token(&text, &keyring(2)), Err(PageTokenError));
    }

    #[test]
    fn an_altered_page_token_is_refused() {
        let text = listing().page_token(&positions()[0], &keyring(1));
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(listing().parse_page_token(&altered, &keyring(1)).is_err(), "{at}");
        }
        for bad in ["", "A", &text[..text.len() - 1], &format!("{text}A")] {
            assert!(listing().parse_page_token(bad, &keyring(1)).is_err());
        }
    }
}
