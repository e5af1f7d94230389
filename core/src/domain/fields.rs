//! The fields of a token as types that only accept valid values, and the list of all errors in a
//! request. Called by the gRPC API for input and by the store for output. Knows no message types and no
//! SQL.

use std::collections::BTreeMap;

use super::text::{is_deceptive, is_invisible};
use time::{Duration, OffsetDateTime};

/// The maximum number of labels of one token.
pub const MAX_LABELS: usize = 32;

/// The maximum number of violations of one request that are listed; the others are counted.
pub const MAX_NAMED: usize = 10;

/// The last instant at which a token may expire: 9999-12-31T23:59:59Z (the end of
/// `google.protobuf.Timestamp`'s range, to the second).
pub const MAX_EXPIRE_TIME: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);

/// The error in one value, in words that help the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A required value is absent or empty.
    #[error("is required")]
    Required,
    /// The value is longer than its limit.
    #[error("is longer than {limit} {unit}")]
    TooLong {
        /// The maximum length.
        limit: usize,
        /// What the limit counts, for example `bytes` or `scopes`.
        unit: &'static str,
    },
    /// The value contains a control character.
    #[error("contains a control character")]
    ControlCharacter,
    /// The value consists only of invisible characters, such as white space.
    #[error("has no visible character")]
    Blank,
    /// The value breaks another rule, which the text states.
    #[error("{0}")]
    Rule(&'static str),
}

/// One field of a request and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request message, for example `scopes[2]`.
    pub field: String,
    /// What is wrong with it; never contains the value.
    pub description: String,
}

/// Collects the errors of a request, so that the client learns them all at once: the first ten are
/// listed, the others counted, so that no request makes the error response long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations {
    named: Vec<Violation>,
    more: usize,
}

impl Violations {
    /// Creates a list with one violation.
    #[must_use]
    pub fn one(field: &str, error: &FieldError) -> Self {
        let mut violations = Self::default();
        violations.add(field, error);
        violations
    }

    /// Adds a violation of `field`.
    pub fn add(&mut self, field: &str, error: &FieldError) {
        if self.named.len() < MAX_NAMED {
            self.named.push(Violation { field: field.to_owned(), description: error.to_string() });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Takes the value of a parsed field, or records its error.
    pub fn take<T>(&mut self, field: &str, parsed: Result<T, FieldError>) -> Option<T> {
        parsed.inspect_err(|error| self.add(field, error)).ok()
    }

    /// Returns the first ten violations in the order in which they were found.
    #[must_use]
    pub fn list(&self) -> &[Violation] {
        &self.named
    }

    /// Returns how many violations there are besides the listed ones.
    #[must_use]
    pub fn more(&self) -> usize {
        self.more
    }

    /// Returns `value` when no violation was recorded and it is present.
    ///
    /// # Errors
    /// The violations themselves.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.named.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}

/// Defines a newtype over text with a private field and one parser.
macro_rules! text_field {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Accepts a text within the type's limits.
            ///
            /// # Errors
            /// The first rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, FieldError> {
                let check: fn(&str) -> Result<(), FieldError> = $check;
                check(text).map(|()| Self(text.into()))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

text_field!(
    /// The tenant of a token: opaque, 1 to 200 bytes, no control characters.
    OrganizationId,
    opaque_id
);

text_field!(
    /// The user of a token: opaque, 1 to 200 bytes, no control characters.
    UserId,
    opaque_id
);

text_field!(
    /// The beginning of users' ids: 1 to 200 bytes, no control characters.
    UserPrefix,
    |text| match text {
        "" => Err(FieldError::Rule("is empty: every user is chosen by all_users")),
        text => opaque_id(text),
    }
);

text_field!(
    /// A token's name: 1 to 100 characters, at least one of them visible, none of them a control
    /// character, invisible in text or changing its direction ([`super::text`]). Not unique.
    TokenName,
    |text| {
        if text.is_empty() {
            return Err(FieldError::Required);
        }
        if text.chars().count() > 100 {
            return Err(FieldError::TooLong { limit: 100, unit: "characters" });
        }
        if text.chars().all(is_invisible) {
            return Err(FieldError::Blank);
        }
        no_control_characters(text)?;
        if text.chars().any(is_deceptive) {
            return Err(FieldError::Rule("contains a character that is invisible or changes the direction of \
                 text"));
        }
        Ok(())
    }
);

text_field!(
    /// The reason of a revocation: at most 500 bytes, may be empty, no control characters.
    RevokeReason,
    |text| at_most_bytes(text, 500).and_then(|()| no_control_characters(text))
);

impl OrganizationId {
    /// Returns the organization for a root caller that names none: `default`.
    #[must_use]
    pub fn default_organization() -> Self {
        Self("default".into())
    }
}

fn opaque_id(text: &str) -> Result<(), FieldError> {
    if text.is_empty() {
        return Err(FieldError::Required);
    }
    at_most_bytes(text, 200)?;
    no_control_characters(text)
}

fn at_most_bytes(text: &str, limit: usize) -> Result<(), FieldError> {
    if text.len() > limit {
        return Err(FieldError::TooLong { limit, unit: "bytes" });
    }
    Ok(())
}

fn no_control_characters(text: &str) -> Result<(), FieldError> {
    if text.chars().any(char::is_control) {
        return Err(FieldError::ControlCharacter);
    }
    Ok(())
}

/// A token's labels: at most 32; keys of 1 to 63 bytes, values of at most 255 bytes, no control
/// characters in either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Accepts pairs that are all within the limits.
    ///
    /// # Errors
    /// The first rule that a pair, or their number, breaks.
    pub fn parse(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, FieldError> {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            labels.insert(key, value);
            if labels.len() > MAX_LABELS {
                return Err(FieldError::TooLong { limit: MAX_LABELS, unit: "labels" });
            }
        }
        for (key, value) in &labels {
            if key.is_empty() {
                return Err(FieldError::Rule("has a label with an empty key"));
            }
            if key.len() > 63 {
                return Err(FieldError::Rule("has a label whose key is longer than 63 bytes"));
            }
            if value.len() > 255 {
                return Err(FieldError::Rule("has a label whose value is longer than 255 bytes"));
            }
            no_control_characters(key)?;
            no_control_characters(value)?;
        }
        Ok(Self(labels))
    }

    /// Iterates over the labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The choice that every creation must make: when the token expires, or that it never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiration {
    /// It expires at this instant.
    At(OffsetDateTime),
    /// It expires this long after its creation.
    After(Duration),
    /// It never expires.
    Never,
}

impl Expiration {
    /// Resolves the choice for a token that is created at `now`; `None` means never. The instant is
    /// truncated to whole microseconds, as Postgres stores them, so it is never later than requested.
    ///
    /// # Errors
    /// The instant is not after `now`, or after [`MAX_EXPIRE_TIME`].
    pub fn resolve(self, now: OffsetDateTime) -> Result<Option<OffsetDateTime>, FieldError> {
        const TOO_LATE: FieldError = FieldError::Rule("ends after 9999-12-31T23:59:59Z");
        let end = match self {
            Self::Never => return Ok(None),
            Self::At(time) => time,
            Self::After(ttl) => now.checked_add(ttl).ok_or(TOO_LATE)?,
        };
        let end = whole_microseconds(end);
        if end > MAX_EXPIRE_TIME {
            return Err(TOO_LATE);
        }
        if end <= now {
            return Err(FieldError::Rule("is not in the future"));
        }
        Ok(Some(end))
    }
}

fn whole_microseconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(time.microsecond().saturating_mul(1_000)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    #[test]
    fn a_name_counts_characters_and_refuses_blank_and_control_characters() {
        assert!(TokenName::parse(&"ü".repeat(100)).is_ok());
        assert_eq!(
            TokenName::parse(&"ü".repeat(101)),
            Err(FieldError::TooLong { limit: 100, unit: "characters" })
        );
        assert_eq!(TokenName::parse(""), Err(FieldError::Required));
        assert_eq!(TokenName::parse(" \u{3000}"), Err(FieldError::Blank));
        assert_eq!(TokenName::parse("a\u{85}b"), Err(FieldError::ControlCharacter));
        for unseen in ["\u{200b}", "\u{3164}\u{2800}", "\u{ad}\u{e0041}", "\u{200d}\u{fe0f} "] {
            assert_eq!(TokenName::parse(unseen), Err(FieldError::Blank), "{unseen:?}");
        }
        for turned in ["a\u{202e}b", "a\u{61c}b", "a\u{ad}b", "a\u{e0041}", "a\u{fff9}", "\u{feff}a"] {
            assert!(matches!(TokenName::parse(turned), Err(FieldError::Rule(_))), "{turned:?}");
        }
        assert!(TokenName::parse("\u{1f469}\u{200d}\u{1f4bb} می\u{200c}خواهم ❤\u{fe0f}").is_ok());
    }

    #[test]
    fn an_opaque_id_counts_bytes() {
        assert!(UserId::parse(&"ü".repeat(100)).is_ok());
        assert_eq!(UserId::parse(&"ü".repeat(101)), Err(FieldError::TooLong { limit: 200, unit: "bytes" }));
        assert_eq!(OrganizationId::parse(""), Err(FieldError::Required));
        assert_eq!(OrganizationId::parse("a\nb"), Err(FieldError::ControlCharacter));
    }

    #[test]
    fn labels_keep_their_limits() {
        let pair = |key: usize, value: usize| [("k".repeat(key), "v".repeat(value))];
        assert!(Labels::parse(pair(63, 255)).is_ok());
        assert!(Labels::parse(pair(1, 0)).is_ok());
        for bad in [pair(0, 1), pair(64, 1), pair(1, 256)] {
            assert!(matches!(Labels::parse(bad), Err(FieldError::Rule(_))));
        }
        let many = |n: usize| (0..n).map(|i| (i.to_string(), String::new()));
        assert!(Labels::parse(many(32)).is_ok());
        assert_eq!(Labels::parse(many(33)), Err(FieldError::TooLong { limit: 32, unit: "labels" }));
    }

    #[test]
    fn an_expiration_must_lie_in_the_future_and_within_the_calendar() {
        assert_eq!(Expiration::Never.resolve(NOW), Ok(None));
        assert!(Expiration::At(NOW).resolve(NOW).is_err());
        assert_eq!(
            Expiration::At(NOW + Duration::microseconds(1)).resolve(NOW),
            Ok(Some(NOW + Duration::microseconds(1)))
        );
        assert_eq!(Expiration::At(MAX_EXPIRE_TIME).resolve(NOW), Ok(Some(MAX_EXPIRE_TIME)));
        assert!(Expiration::At(MAX_EXPIRE_TIME + Duration::milliseconds(1)).resolve(NOW).is_err());
        assert!(Expiration::After(Duration::MAX).resolve(NOW).is_err());
    }

    #[test]
    fn an_expiration_is_truncated_to_microseconds() {
        let requested = NOW + Duration::nanoseconds(1_999);
        assert_eq!(Expiration::At(requested).resolve(NOW), Ok(Some(NOW + Duration::microseconds(1))));
        assert!(Expiration::After(Duration::nanoseconds(999)).resolve(NOW).is_err());
    }

    #[test]
    fn ten_violations_are_named_and_the_others_counted() {
        let mut violations = Violations::default();
        for index in 0..12 {
            violations.add(&index.to_string(), &FieldError::Required);
        }
        assert_eq!((violations.list().len(), violations.more()), (10, 2));
        assert_eq!(violations.list().last().map(|last| &*last.field), Some("9"));
        assert!(violations.finish(Some(())).is_err());
    }

    #[test]
    fn all_violations_are_collected() {
        let mut violations = Violations::default();
        let user = violations.take("user_id", UserId::parse(""));
        let name = violations.take("name", TokenName::parse(" "));
        assert_eq!((user, name), (None, None));
        let list = violations.finish(Some(())).unwrap_err();
        let fields: Vec<_> = list.list().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["user_id", "name"]);
    }
}
