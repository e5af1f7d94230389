//! Pages of a listing: what is asked for, where a page ended, and the opaque token that carries the end
//! to the next call. A page token is authenticated together with the filters it was made under, so that
//! it serves no other listing. Called by the list action and the store. Knows no SQL.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use super::fields::{FieldError, OrganizationId, UserId};
use super::token::{Token, TokenState};
use crate::secret::{Keyring, TokenId};

/// How many tokens a page holds when the request does not say.
pub const DEFAULT_PAGE_SIZE: u32 = 50;

/// The most tokens that a page holds; more asked for is lowered to this.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// The order of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    CreateTimeDescending,
    /// Soonest to expire first, never last.
    ExpireTime,
}

/// Which tokens a listing shows, in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Only this organization's; `None`: every one's.
    pub organization_id: Option<OrganizationId>,
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// Only those in one of these states; empty: in any.
    pub states: Vec<TokenState>,
    /// Only those created at this moment or later. This moment and the others: whole microseconds.
    pub created_after: Option<OffsetDateTime>,
    /// Only those created before this moment.
    pub created_before: Option<OffsetDateTime>,
    /// Only those that expire before this moment.
    pub expires_before: Option<OffsetDateTime>,
    /// Only those created before this moment and not used from it on.
    pub unused_since: Option<OffsetDateTime>,
    /// Only those with this in their name.
    pub name_contains: Option<NamePart>,
    /// Their order.
    pub order: Order,
}

/// A part of a name to look for: 1 to 100 characters, no control characters. The case of ASCII letters does
/// not matter.
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

/// The last token of a page, as the order sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its `create_time`, or its `expire_time` (`None`: never), by the listing's order.
    pub time: Option<OffsetDateTime>,
    /// Its id, which decides between equal times.
    pub id: TokenId,
}

/// The page token was made by another service, for other filters, or was altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token is not one that this listing with these filters returned")]
pub struct PageTokenError;

const VERSION: u8 = 1;
const TIME_NEVER: i64 = i64::MAX;
const PAYLOAD: usize = 1 + 8 + 16;
const TAG: usize = 16;

impl Listing {
    /// Returns where a page that ends with `token` ended.
    #[must_use]
    pub fn position_of(&self, token: &Token) -> Position {
        let time = match self.order {
            Order::CreateTimeDescending => Some(token.create_time),
            Order::ExpireTime => token.expire_time,
        };
        Position { time, id: token.id }
    }

    /// Writes the page token that continues after `position`.
    #[must_use]
    pub fn page_token(&self, position: &Position, keyring: &Keyring) -> String {
        position.page_token(&self.filters(), keyring)
    }

    /// Reads a page token that this listing wrote.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse_page_token(&self, text: &str, keyring: &Keyring) -> Result<Position, PageTokenError> {
        Position::parse_page_token(text, &self.filters(), keyring)
    }

    /// Returns every filter, each preceded by whether it is there and by its length.
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
        for time in [self.created_after, self.created_before, self.expires_before, self.unused_since] {
            part(time.map(|time| unix_micros(time).to_be_bytes()).as_ref().map(<[u8; 8]>::as_slice));
        }
        part(self.name_contains.as_ref().map(|part| part.folded().as_bytes()));
        bytes
    }
}

impl Position {
    /// Writes the page token that continues after this position, for what has these filters alone.
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

    /// Reads a page token that was written for these filters.
    ///
    /// # Errors
    /// Anything else.
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
        Listing {
            organization_id: Some(OrganizationId::parse("acme").unwrap()),
            user_id: None,
            states: vec![TokenState::Active],
            created_after: None,
            created_before: None,
            expires_before: None,
            unused_since: None,
            name_contains: None,
            order: Order::CreateTimeDescending,
        }
    }

    fn positions() -> [Position; 2] {
        let id = TokenId::from_bytes([3; 16]);
        let time = datetime!(2026-03-01 12:00:00.123_456 UTC);
        [Position { time: Some(time), id }, Position { time: None, id }]
    }

    #[test]
    fn a_page_token_reads_back_as_the_position_it_was_made_of() {
        for position in positions() {
            let text = listing().page_token(&position, &keyring(1));
            assert_eq!(listing().parse_page_token(&text, &keyring(1)), Ok(position));
        }
    }

    #[test]
    fn a_page_token_serves_no_other_listing() {
        let text = listing().page_token(&positions()[0], &keyring(1));
        let others = [
            Listing { organization_id: None, ..listing() },
            Listing { organization_id: Some(OrganizationId::parse("b").unwrap()), ..listing() },
            Listing { user_id: Some(UserId::parse("acme").unwrap()), ..listing() },
            Listing { states: vec![], ..listing() },
            Listing { order: Order::ExpireTime, ..listing() },
            Listing { created_after: positions()[0].time, ..listing() },
            Listing { created_before: positions()[0].time, ..listing() },
            Listing { expires_before: positions()[0].time, ..listing() },
            Listing { unused_since: positions()[0].time, ..listing() },
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
