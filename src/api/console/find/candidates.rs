//! Finds in a text what may be a secret of this installation, or the id of a token. Pure; the page's script finds the same
//! in the browser, so that the rest of the text is not sent at all.

use zeroize::Zeroizing;

use crate::secret::{Prefix, Secret, TokenId};

/// How many are looked up for one text.
pub(super) const MAX_CANDIDATES: usize = 20;

/// What a word of the text is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// It has the form of a secret, with the right checksum.
    Secret(TokenId, Zeroizing<String>),
    /// It begins as a secret does, and names a token, but it is changed, or cut off.
    Damaged(TokenId),
    /// It can be the id of a token.
    Id(TokenId),
}

impl Candidate {
    pub(super) fn id(&self) -> TokenId {
        match self {
            Self::Secret(id, _) | Self::Damaged(id) | Self::Id(id) => *id,
        }
    }

    /// Returns how much it says: of several words about one token, the one that says most is looked up.
    fn weight(&self) -> u8 {
        match self {
            Self::Secret(..) => 2,
            Self::Damaged(_) => 1,
            Self::Id(_) => 0,
        }
    }
}

/// Returns the candidates in a text, each token once, in the order of the text; and how many are left out.
pub(super) fn candidates(text: &str, prefix: &Prefix) -> (Vec<Candidate>, usize) {
    let mut found: Vec<Candidate> = Vec::new();
    let mut left_out: usize = 0;
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    for candidate in words.filter_map(|word| candidate(word, prefix)) {
        let full = found.len() == MAX_CANDIDATES;
        match found.iter_mut().find(|known| known.id() == candidate.id()) {
            Some(known) if known.weight() < candidate.weight() => *known = candidate,
            Some(_) => {}
            None if full => left_out = left_out.saturating_add(1),
            None => found.push(candidate),
        }
    }
    (found, left_out)
}

fn candidate(word: &str, prefix: &Prefix) -> Option<Candidate> {
    if let Ok(secret) = Secret::parse(word, prefix) {
        return Some(Candidate::Secret(secret.id(), Zeroizing::new(word.to_owned())));
    }
    let body = word.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('_'));
    match body {
        Some(body) => TokenId::parse(body.get(..TokenId::LENGTH)?).ok().map(Candidate::Damaged),
        None => TokenId::parse(word).ok().map(Candidate::Id),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn secret(byte: u8) -> (String, TokenId) {
        let id = TokenId::from_bytes([byte; 16]);
        let secret = Secret::derived(id, Zeroizing::new([byte; 32]));
        (secret.render(&Prefix::default()).expose_secret().to_owned(), id)
    }

    fn found(text: &str) -> Vec<Candidate> {
        candidates(text, &Prefix::default()).0
    }

    #[test]
    fn secrets_and_ids_are_found_within_any_text() {
        let ((one, first), (two, second)) = (secret(1), secret(2));
        let whole = |text: &str, id| Candidate::Secret(id, Zeroizing::new(text.to_owned()));
        for (text, expected) in [
            (one.clone(), vec![whole(&one, first)]),
            (
                format!("GET /?t={two}&x HTTP/1.1 \"Bearer {one}\u{2026}"),
                vec![whole(&two, second), whole(&one, first)],
            ),
            (format!("{{\"token_id\":\"{first}\"}}"), vec![Candidate::Id(first)]),
            (one[..50].to_owned(), vec![Candidate::Damaged(first)]),
            (format!("{one}x"), vec![Candidate::Damaged(first)]),
            // Each token once, by what says most.
            (format!("{first} {one} {first}"), vec![whole(&one, first)]),
            (format!("x{one} _{first} {first}0 acme{}", &one[4..]), vec![]),
            ("tokd_ tokd_short \u{1F600} 0123456789".to_owned(), vec![]),
            (String::new(), vec![]),
        ] {
            assert_eq!(found(&text), expected, "{text}");
        }
    }

    #[test]
    fn the_number_of_candidates_is_bounded() {
        let text: Vec<String> = (0..=255).map(|byte| TokenId::from_bytes([byte; 16]).to_string()).collect();
        let (found, left_out) = candidates(&text.join("\n"), &Prefix::default());
        assert_eq!((found.len(), left_out), (MAX_CANDIDATES, 256 - MAX_CANDIDATES));
    }
}
