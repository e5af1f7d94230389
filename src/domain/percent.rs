//! Percent-encoding (RFC 3986, 2.1) without loss: what comes in is decoded strictly, what goes out differs if it differed.
//! Used by the APIs and by the configuration.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// All but visible ASCII, and `%` itself.
const INVISIBLE: AsciiSet = CONTROLS.add(b' ').add(b'%');

/// Encodes all but visible ASCII, and `%` itself, so that a header loses and changes nothing: ids are
/// opaque, and two different ones must never look the same.
#[must_use]
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &INVISIBLE).to_string()
}

/// Decodes to bytes; `None` if a `%` has no two hexadecimal digits after it. A `+` is a plus.
#[must_use]
pub fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let escapes = text.split(|byte| *byte == b'%').skip(1);
    let are_whole = escapes
        .map(|after| after.first_chunk::<2>())
        .all(|digits| digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    are_whole.then(|| percent_decode(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_differs_from_every_other_one_also_when_encoded() {
        assert_eq!(encoded("ada@example.org"), "ada@example.org");
        assert_eq!(encoded(" ada %é\u{7f}"), "%20ada%20%25%C3%A9%7F");
    }

    #[test]
    fn a_broken_escape_is_refused() {
        assert_eq!(decoded(b"a%20+%c3%A9%25").as_deref(), Some("a +é%".as_bytes()));
        assert_eq!(decoded(b""), Some(Vec::new()));
        for bad in ["%", "a%", "%2", "%2%41", "%%41", "%+1", "%4g", "%é"] {
            assert_eq!(decoded(bad.as_bytes()), None, "{bad}");
        }
    }
}
