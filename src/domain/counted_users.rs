//! How far the tokens of a user fit into a policy's limit, for users whose tokens were counted already. Each
//! page of a dry run passes it on inside its page token, so that a user's tokens are counted once and not
//! once per page. Called by the enforcement actions and the store. Knows no SQL.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::Owner;
use super::page::{PageTokenError, Position};
use crate::secret::Keyring;

/// The maximum number of users in a page token, which then has about 1,400 characters.
const MAX_CARRIED: usize = 32;

/// A user, by the first half of a SHA-256: all users take the same space.
const TAG_BYTES: usize = 16;
const ENTRY_BYTES: usize = TAG_BYTES + 8 + 8;

/// The place of a token in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenOrder {
    /// Its creation, in microseconds.
    pub time: i64,
    /// Decides between equal times.
    pub id_order: i64,
}

/// Before every token.
const FIRST: TokenOrder = TokenOrder { time: i64::MIN, id_order: i64::MIN };

/// Users whose tokens were counted.
#[derive(Debug, Clone, Default)]
pub struct CountedUsers(HashMap<[u8; TAG_BYTES], Counted>);

#[derive(Debug, Clone, Copy)]
struct Counted {
    /// The oldest token within the limit; [`FIRST`]: all tokens are.
    oldest_allowed: TokenOrder,
    /// How many tokens of this page are the user's.
    met: u32,
}

impl CountedUsers {
    /// Notes that a token of this page is the user's. Returns whether the user's tokens must be counted.
    pub fn meet(&mut self, owner: Owner<'_>) -> bool {
        match self.0.entry(tag(words(owner))) {
            Entry::Occupied(mut known) => {
                let met = &mut known.get_mut().met;
                *met = met.saturating_add(1);
                false
            }
            Entry::Vacant(new) => {
                new.insert(Counted { oldest_allowed: FIRST, met: 1 });
                true
            }
        }
    }

    /// Adds a user, by the id and the name of its kind, with more tokens than the limit, or just as many.
    pub fn insert(&mut self, owner: (&str, &str), oldest_allowed: TokenOrder) {
        let met = self.0.get(&tag(owner)).map_or(0, |known| known.met);
        self.0.insert(tag(owner), Counted { oldest_allowed, met });
    }

    /// Returns the place of the user's oldest token within the limit; `None`: the user was not counted.
    #[must_use]
    pub fn oldest_allowed(&self, owner: Owner<'_>) -> Option<TokenOrder> {
        self.0.get(&tag(words(owner))).map(|known| known.oldest_allowed)
    }

    /// Encodes the page token that continues after `position`, valid only with these filters. It has the
    /// users with the most tokens on this page, whom the next page will most likely meet.
    #[must_use]
    pub fn page_token(&self, position: &Position, filters: &[u8], keyring: &Keyring) -> String {
        let mut users: Vec<_> = self.0.iter().collect();
        users.sort_unstable_by_key(|(tag, user)| (std::cmp::Reverse(user.met), **tag));
        let mut bytes = Vec::new();
        for (tag, Counted { oldest_allowed, .. }) in users.into_iter().take(MAX_CARRIED) {
            bytes.extend_from_slice(tag);
            bytes.extend_from_slice(&oldest_allowed.time.to_be_bytes());
            bytes.extend_from_slice(&oldest_allowed.id_order.to_be_bytes());
        }
        let position = position.page_token(&bound(filters, &bytes), keyring);
        format!("{position}.{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Decodes a page token that was encoded for these filters.
    ///
    /// # Errors
    /// [`PageTokenError`] for any other text.
    pub fn parse_page_token(
        text: &str,
        filters: &[u8],
        keyring: &Keyring,
    ) -> Result<(Position, Self), PageTokenError> {
        let (position, users) = text.split_once('.').ok_or(PageTokenError)?;
        let bytes = URL_SAFE_NO_PAD.decode(users).map_err(|_| PageTokenError)?;
        let position = Position::parse_page_token(position, &bound(filters, &bytes), keyring)?;
        let (entries, []) = bytes.as_chunks::<ENTRY_BYTES>() else { return Err(PageTokenError) };
        Ok((position, Self(entries.iter().map(parse).collect())))
    }
}

/// Returns what a page token is bound to. The length comes last: so no filters are taken for users.
fn bound(filters: &[u8], users: &[u8]) -> Vec<u8> {
    [filters, users, &(users.len() as u64).to_be_bytes()].concat()
}

fn parse(entry: &[u8; ENTRY_BYTES]) -> ([u8; TAG_BYTES], Counted) {
    // Their lengths add up to that of an entry: every byte is read.
    let (mut tag, mut time, mut id_order) = ([0; TAG_BYTES], [0; 8], [0; 8]);
    let bytes = tag.iter_mut().chain(&mut time).chain(&mut id_order);
    bytes.zip(entry).for_each(|(to, from)| *to = *from);
    let oldest_allowed =
        TokenOrder { time: i64::from_be_bytes(time), id_order: i64::from_be_bytes(id_order) };
    (tag, Counted { oldest_allowed, met: 0 })
}

fn words(owner: Owner<'_>) -> (&str, &str) {
    (owner.user_id.as_str(), owner.kind.word())
}

fn tag((user_id, kind): (&str, &str)) -> [u8; TAG_BYTES] {
    // No id has a line break.
    let hash = Sha256::new_with_prefix(kind).chain_update("\n").chain_update(user_id).finalize();
    std::array::from_fn(|byte| hash[byte])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{OrganizationId, OwnerKind, UserId};
    use crate::secret::TokenId;
    use time::macros::datetime;

    fn keyring() -> Keyring {
        Keyring::parse(&base64::engine::general_purpose::STANDARD.encode([1; 32])).unwrap()
    }

    fn position() -> Position {
        Position { time: Some(datetime!(2026-03-01 12:00 UTC)), id: TokenId::from_bytes([3; 16]) }
    }

    fn users() -> (OrganizationId, Vec<UserId>) {
        let users = (0..250).map(|number| UserId::parse(&format!("user-{number}")).unwrap());
        (OrganizationId::parse("acme").unwrap(), users.collect())
    }

    #[test]
    fn a_page_token_carries_the_users_with_the_most_tokens() {
        let (organization_id, users) = users();
        let user = |number: usize| Owner {
            organization_id: &organization_id,
            user_id: &users[number],
            kind: OwnerKind::User,
        };
        let mut counted = CountedUsers::default();
        for number in 0..250 {
            assert!(counted.meet(user(number)), "{number} is new");
            for _ in 0..number {
                assert!(!counted.meet(user(number)), "{number} is counted once");
            }
            if number % 2 == 0 {
                let time = i64::try_from(number).unwrap();
                counted.insert(words(user(number)), TokenOrder { time, id_order: -1 });
            }
        }
        let text = counted.page_token(&position(), b"filters", &keyring());
        assert!(text.len() < 1_500, "{}", text.len());
        let (at, mut carried) = CountedUsers::parse_page_token(&text, b"filters", &keyring()).unwrap();
        assert_eq!(at, position());
        for number in 250 - 32..250 {
            assert!(!carried.meet(user(number)));
            assert_eq!(carried.oldest_allowed(user(number)), counted.oldest_allowed(user(number)));
        }
        assert!(carried.meet(user(217)));
        assert!(carried.meet(Owner { kind: OwnerKind::Service, ..user(249) }), "another owner");
    }

    #[test]
    fn an_altered_page_token_and_one_with_other_filters_are_refused() {
        let mut counted = CountedUsers::default();
        counted.insert(("ada", "user"), TokenOrder { time: 1, id_order: 2 });
        for counted in [&counted, &CountedUsers::default()] {
            let text = counted.page_token(&position(), b"filters", &keyring());
            assert!(CountedUsers::parse_page_token(&text, b"filters", &keyring()).is_ok());
            assert!(CountedUsers::parse_page_token(&text, b"other", &keyring()).is_err());
            for at in 0..text.len() {
                let mut altered = text.clone().into_bytes();
                altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
                let altered = String::from_utf8(altered).unwrap();
                assert!(CountedUsers::parse_page_token(&altered, b"filters", &keyring()).is_err(), "{at}");
            }
            let (position, users) = text.split_once('.').unwrap();
            for bad in [position, users, &format!("{position}."), &format!("{text}A"), &format!("{text}.")] {
                let parsed = CountedUsers::parse_page_token(bad, b"filters", &keyring());
                assert_eq!(parsed.is_ok(), bad == text, "{bad}");
            }
        }
    }
}
