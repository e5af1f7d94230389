//! Scopes: their grammar, which scope covers which, and the six reserved scopes that grant permissions
//! in tokend itself. Called by Verify's judge and by access control; one implementation serves both.

use super::fields::FieldError;

/// The maximum number of scopes that a token may have or a Verify may require.
pub const MAX_SCOPES: usize = 64;

/// The maximum length of a scope, in characters (all of them ASCII).
pub const MAX_SCOPE_LENGTH: usize = 100;

const GRAMMAR: FieldError = FieldError::Rule(
    "is not segments of [a-z0-9][a-z0-9._/-]* joined by ':', with '*' only as the last of several",
);
const RESERVED: FieldError = FieldError::Rule(
    "begins with the reserved segment 'tokend' but is not one of tokend:verify, tokend:verify:any, \
     tokend:read, tokend:self, tokend:write, tokend:root",
);

/// One permission: segments joined by `:`, the last of several may be `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Box<str>);

impl Scope {
    /// Accepts a text of the scope grammar, at most 100 characters.
    ///
    /// # Errors
    /// The rule that the text breaks; a text whose first segment is `tokend` must be one of the
    /// reserved words exactly.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() {
            return Err(FieldError::Required);
        }
        if text.chars().count() > MAX_SCOPE_LENGTH {
            return Err(FieldError::TooLong { limit: MAX_SCOPE_LENGTH, unit: "characters" });
        }
        let (body, wildcard) = match text.strip_suffix(":*") {
            Some(body) => (body, true),
            None => (text, false),
        };
        if !body.split(':').all(is_segment) {
            return Err(GRAMMAR);
        }
        let reserved = body == "tokend" || body.starts_with("tokend:");
        if reserved && (wildcard || ReservedScope::from_word(text).is_none()) {
            return Err(RESERVED);
        }
        Ok(Self(text.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this scope satisfies `required`. `a:*` covers `a:b`, `a:b:c`, `a:*` and `a:b:*`,
    /// but neither `a` nor `ab:c`; no wildcard covers a reserved scope, because none can start with
    /// `tokend`.
    #[must_use]
    pub fn covers(&self, required: &Scope) -> bool {
        covers(self.0.as_bytes(), required)
    }
}

/// Returns whether a scope, given as the bytes of its text, satisfies `required`.
fn covers(granted: &[u8], required: &Scope) -> bool {
    match granted.strip_suffix(b"*") {
        Some(stem) => required.0.as_bytes().starts_with(stem),
        None => granted == required.0.as_bytes(),
    }
}

fn is_segment(text: &str) -> bool {
    let mut bytes = text.bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.next().is_some_and(alphanumeric)
        && bytes.all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'/' | b'-'))
}

/// The six scopes that grant permissions in tokend itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReservedScope {
    /// `tokend:verify`: Verify in the token's own organization.
    Verify = 1,
    /// `tokend:verify:any`: Verify in every organization.
    VerifyAny = 2,
    /// `tokend:read`: read tokens.
    Read = 4,
    /// `tokend:write`: create, change and revoke tokens.
    Write = 8,
    /// `tokend:root`: all permissions, in every organization.
    Root = 16,
    /// `tokend:self`: manage the tokens of the token's own user.
    Own = 32,
}

impl ReservedScope {
    /// Every reserved scope.
    pub const ALL: [Self; 6] =
        [Self::Verify, Self::VerifyAny, Self::Read, Self::Own, Self::Write, Self::Root];

    /// Returns the scope's text.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Verify => "tokend:verify",
            Self::VerifyAny => "tokend:verify:any",
            Self::Read => "tokend:read",
            Self::Write => "tokend:write",
            Self::Root => "tokend:root",
            Self::Own => "tokend:self",
        }
    }

    /// Returns the scope with this text.
    #[must_use]
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == text)
    }
}

impl From<ReservedScope> for Scope {
    fn from(scope: ReservedScope) -> Self {
        Self(scope.word().into())
    }
}

/// The reserved scopes of a token, as a bit set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReservedScopes(u8);

impl ReservedScopes {
    /// Returns whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether the scope itself is in the set.
    #[must_use]
    pub const fn contains(self, scope: ReservedScope) -> bool {
        self.0 & scope as u8 != 0
    }

    /// Returns whether the scope is in the set, by itself or through a scope that includes it:
    /// `tokend:root` includes all, `tokend:write` includes `tokend:self`.
    #[must_use]
    pub const fn grants(self, scope: ReservedScope) -> bool {
        let including = match scope {
            ReservedScope::Own => ReservedScope::Write as u8 | ReservedScope::Root as u8,
            _ => ReservedScope::Root as u8,
        };
        self.0 & (scope as u8 | including) != 0
    }

    /// Returns the union of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns a scope of `wanted` that this set does not grant.
    #[must_use]
    pub fn lacking(self, wanted: Self) -> Option<ReservedScope> {
        ReservedScope::ALL.into_iter().find(|&scope| wanted.contains(scope) && !self.grants(scope))
    }
}

impl FromIterator<ReservedScope> for ReservedScopes {
    fn from_iter<I: IntoIterator<Item = ReservedScope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope as u8))
    }
}

/// A set of at most 64 scopes, in the order in which they were first given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Box<[Scope]>);

impl Scopes {
    /// Creates the set; duplicates are stored once.
    ///
    /// # Errors
    /// There are more than 64 scopes.
    pub fn new(named: Vec<Scope>) -> Result<Self, FieldError> {
        if named.len() > MAX_SCOPES {
            return Err(FieldError::TooLong { limit: MAX_SCOPES, unit: "scopes" });
        }
        let mut scopes: Vec<Scope> = Vec::with_capacity(named.len());
        for scope in named {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        Ok(Self(scopes.into()))
    }

    /// Returns the scopes that are not reserved.
    #[must_use]
    pub fn ordinary(&self) -> Self {
        let is_ordinary = |scope: &&Scope| ReservedScope::from_word(scope.as_str()).is_none();
        Self(self.0.iter().filter(is_ordinary).cloned().collect())
    }

    /// Iterates over the scopes in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether one of them covers a scope.
    #[must_use]
    pub fn cover(&self, required: &Scope) -> bool {
        self.iter().any(|scope| scope.covers(required))
    }

    /// Returns the scopes of this set of required ones that no scope of `granted` covers, in their order.
    pub fn not_covered_by<'a, H>(&self, granted: impl Fn() -> H) -> Vec<Scope>
    where
        H: Iterator<Item = &'a [u8]>,
    {
        self.iter().filter(|wanted| !granted().any(|scope| covers(scope, wanted))).cloned().collect()
    }

    /// Returns the reserved scopes in this set.
    #[must_use]
    pub fn reserved(&self) -> ReservedScopes {
        self.iter().filter_map(|scope| ReservedScope::from_word(scope.as_str())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope(text: &str) -> Scope {
        Scope::parse(text).unwrap()
    }

    fn scopes(texts: &[&str]) -> Scopes {
        Scopes::new(texts.iter().map(|text| scope(text)).collect()).unwrap()
    }

    #[test]
    fn the_grammar_of_scopes_is_enforced() {
        for good in ["a", "9", "repo:read", "a:*", "a.b_c/d-e:f", "a:b:*", "tokendx:read"] {
            assert!(Scope::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "", "*", "A", ":", "a:", ":a", "a::b", "a:**", "a:*:b", "*:a", "a*", "a:b*", "-a", "a b", "é",
            "a:-b",
        ] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
        assert!(Scope::parse(&"a".repeat(100)).is_ok());
        assert!(Scope::parse(&"a".repeat(101)).is_err());
    }

    #[test]
    fn there_are_six_reserved_scopes_and_no_wildcard_covers_them() {
        for word in ReservedScope::ALL {
            assert!(Scope::parse(word.word()).is_ok());
        }
        for bad in ["tokend", "tokend:*", "tokend:verify:*", "tokend:admin", "tokend:read:x"] {
            assert_eq!(Scope::parse(bad), Err(RESERVED), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_covers_the_scopes_below_it() {
        for (granted, required, covered) in [
            ("a:b", "a:b", true),
            ("a:b", "a:b:c", false),
            ("a:*", "a:b", true),
            ("a:*", "a:b:c", true),
            ("a:*", "a:*", true),
            ("a:*", "a:b:*", true),
            ("a:b:*", "a:*", false),
            ("a:*", "a", false),
            ("a:*", "ab:c", false),
            ("a:b", "a:*", false),
        ] {
            assert_eq!(scope(granted).covers(&scope(required)), covered, "{granted} {required}");
        }
    }

    /// Extracts the scopes from a cell of the table in docs/api.md.
    fn cell(text: &str) -> Vec<Scope> {
        let quoted = text.split('`').skip(1).step_by(2);
        quoted.filter(|text| *text != "required_scopes").map(scope).collect()
    }

    #[test]
    fn the_documented_table_matches_the_code() {
        const API: &str = include_str!("../../../docs/api.md");
        let (_, table) =
            API.split_once("| the token holds | covers | does not cover |\n|---|---|---|\n").unwrap();
        let rows: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
        assert!(rows.len() >= 6);
        for row in rows {
            let cells: Vec<_> = row.split('|').map(cell).collect();
            let [_, granted, covered, not_covered, _] = &cells[..] else { panic!("{row}") };
            let covers = |required: &Scope| granted.iter().any(|granted| granted.covers(required));
            assert!(covered.iter().all(covers), "{row}");
            assert!(!not_covered.is_empty() && !not_covered.iter().any(covers), "{row}");
        }
    }

    #[test]
    fn root_grants_every_reserved_scope_and_write_grants_itself_and_self() {
        let root = scopes(&["tokend:root"]).reserved();
        let write = scopes(&["tokend:write", "a:b"]).reserved();
        for word in ReservedScope::ALL {
            assert!(root.grants(word));
            assert_eq!(write.grants(word), matches!(word, ReservedScope::Write | ReservedScope::Own));
        }
        assert!(!write.contains(ReservedScope::Own));
        let own = scopes(&["tokend:self"]).reserved();
        assert_eq!(own.lacking(write), Some(ReservedScope::Write));
        assert_eq!(write.lacking(root), Some(ReservedScope::Root));
        assert_eq!(root.lacking(write), None);
        assert!(scopes(&["a:b"]).reserved().is_empty());
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        "[ab](:[ab]){0,2}(:\\*)?".prop_map(|text| scope(&text))
    }

    proptest! {
        #[test]
        fn covering_is_reflexive_and_transitive(a in any_scope(), b in any_scope(), c in any_scope()) {
            prop_assert!(a.covers(&a));
            prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        }
    }
}
