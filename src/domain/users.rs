//! Users as far as tokens tell, and the pages of their list: its filters, where a page ended, and the opaque token that
//! passes this position to the next call. Called by the actions about users and the store. Knows no SQL.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;

use super::page::PageTokenError;
use super::{OrganizationId, OwnerKind, UserId};
use crate::secret::Keyring;

/// The maximum bytes of a user in a response: three ids, a reason, numbers and times.
pub const LARGEST_USER: usize = 2 << 10;

/// A user who has tokens or is disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The tenant.
    pub organization_id: OrganizationId,
    /// The id in the surrounding system.
    pub user_id: UserId,
    /// What the id names.
    pub kind: OwnerKind,
    /// How many tokens are active.
    pub active: u64,
    /// How many tokens are stored, in any state.
    pub tokens: u64,
    /// When one of the tokens was last used.
    pub last_use_time: Option<OffsetDateTime>,
    /// How the user was disabled; `None`: the user is not.
    pub disabling: Option<Disabling>,
}

/// The disabling of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabling {
    /// Since when.
    pub disable_time: OffsetDateTime,
    /// By whom: the text of a principal.
    pub disabled_by: String,
    /// Why; empty: no reason was given.
    pub reason: String,
}

/// The filters of a list of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserListing {
    /// Only this organization's; `None`: of all organizations.
    pub organization_id: Option<OrganizationId>,
    /// Only of this kind.
    pub kind: Option<OwnerKind>,
    /// Only those who are disabled.
    pub only_disabled: bool,
}

/// The position of the last user that a page has read, in the list's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPosition {
    /// The organization's id, as stored.
    pub organization_id: String,
    /// The user's id, as stored.
    pub user_id: String,
    /// The kind's name, as stored.
    pub kind: String,
}

/// Other page tokens begin with 1.
const VERSION: u8 = 2;
const TAG: usize = 16;

impl UserListing {
    /// Encodes the page token that continues after `position`.
    #[must_use]
    pub fn page_token(&self, position: &UserPosition, keyring: &Keyring) -> String {
        let mut bytes = vec![VERSION];
        for text in [&position.organization_id, &position.user_id, &position.kind] {
            add(&mut bytes, text);
        }
        let tag = keyring.sign_page(&self.bound(&bytes));
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes a page token that was encoded for these filters.
    ///
    /// # Errors
    /// [`PageTokenError`] for any other text.
    pub fn parse_page_token(&self, text: &str, keyring: &Keyring) -> Result<UserPosition, PageTokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PageTokenError)?;
        let (payload, tag) = bytes.split_last_chunk::<TAG>().ok_or(PageTokenError)?;
        if !keyring.verify_page(&self.bound(payload), tag) {
            return Err(PageTokenError);
        }
        let (&[VERSION], mut rest) = payload.split_first_chunk().ok_or(PageTokenError)? else {
            return Err(PageTokenError);
        };
        let position = UserPosition {
            organization_id: take(&mut rest)?,
            user_id: take(&mut rest)?,
            kind: take(&mut rest)?,
        };
        if rest.is_empty() { Ok(position) } else { Err(PageTokenError) }
    }

    /// Returns what a page token is bound to: its own bytes, each of which has its length, then the filters.
    fn bound(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        add(&mut bytes, self.organization_id.as_ref().map_or("", OrganizationId::as_str));
        add(&mut bytes, self.kind.map_or("", OwnerKind::word));
        bytes.push(u8::from(self.only_disabled));
        bytes
    }
}

/// Adds a text with its length.
pub(super) fn add(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// Takes a text with its length.
pub(super) fn take(rest: &mut &[u8]) -> Result<String, PageTokenError> {
    let (length, text) = rest.split_first_chunk().ok_or(PageTokenError)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| PageTokenError)?;
    let (text, after) = text.split_at_checked(length).ok_or(PageTokenError)?;
    *rest = after;
    String::from_utf8(text.to_vec()).map_err(|_| PageTokenError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(byte: u8) -> Keyring {
        Keyring::parse(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap()
    }

    fn listing() -> UserListing {
        UserListing {
            organization_id: Some(OrganizationId::parse("acme").unwrap()),
            kind: Some(OwnerKind::User),
            only_disabled: false,
        }
    }

    fn position() -> UserPosition {
        UserPosition { organization_id: "acme".into(), user_id: "zoë".into(), kind: "user".into() }
    }

    #[test]
    fn a_page_token_reads_back_and_only_with_its_filters() {
        let text = listing().page_token(&position(), &keyring(1));
        assert_eq!(listing().parse_page_token(&text, &keyring(1)), Ok(position()));
        assert!(listing().parse_page_token(&text, &keyring(2)).is_err());
        for other in [
            UserListing { organization_id: None, ..listing() },
            UserListing { organization_id: Some(OrganizationId::parse("b").unwrap()), ..listing() },
            UserListing { kind: None, ..listing() },
            UserListing { kind: Some(OwnerKind::Service), ..listing() },
            UserListing { only_disabled: true, ..listing() },
        ] {
            assert_eq!(other.parse_page_token(&text, &keyring(1)), Err(PageTokenError));
        }
    }

    #[test]
    fn an_altered_page_token_is_refused() {
        let text = listing().page_token(&position(), &keyring(1));
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
