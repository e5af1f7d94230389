//! The spelling of paths: which can have a rule, and the normal form of all spellings that some
//! router or server treats as equal. Pure functions on text.

use std::borrow::Cow;

/// Checks that a request can have exactly this path, with no other spelling for a router.
pub(super) fn can_match(path: &str) -> Result<(), &'static str> {
    const PATTERN: &str =
        "it is compared literally and may hold no patterns; put a separate guard around such a route";
    let Some(segments) = path.strip_prefix('/') else { return Err("it must begin with /") };
    if path.contains(['?', '#']) {
        return Err("it must end before the query");
    }
    if path.contains(['{', '}', '*', '<', '>']) {
        return Err(PATTERN);
    }
    if path.contains(['%', '\\', ';']) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it can be written in several ways; put a separate guard around such a route");
    }
    let last = segments.split('/').count();
    for (number, segment) in segments.split('/').enumerate() {
        match segment {
            _ if segment.starts_with(':') => return Err(PATTERN),
            "" if number + 1 < last => return Err("it contains an empty segment"),
            "." | ".." => return Err("it contains a segment . or .."),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the normal form of a path. Undoes all that some router or server treats as equal: (repeated)
/// percent-encoding, empty and dot segments, parameters, backslashes, case, and invisible characters.
pub(super) fn plain(path: &str) -> Cow<'_, str> {
    let simple = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_~/".contains(&byte);
    let ends = path.len() > 1 && path.ends_with('/');
    if path.starts_with('/') && !ends && !path.contains("//") && path.bytes().all(simple) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path.as_bytes());
    let text = String::from_utf8_lossy(&decoded).to_lowercase();
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let mut segments: Vec<String> = Vec::new();
    for segment in text.split(['/', '\\']) {
        let segment = segment.split(';').next().unwrap_or_default();
        let visible: String = segment.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
        match &*visible {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(visible),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

/// Decodes percent-encoding repeatedly. Invalid encodings stay unchanged.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded: Vec<u8> = Vec::with_capacity(bytes.len());
    for byte in bytes {
        decoded.push(*byte);
        while let [.., b'%', high, low] = &*decoded {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { break };
            decoded.truncate(decoded.len() - 3);
            decoded.push(high << 4 | low);
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(character: char) -> String {
        format!("%{:02x}", u32::from(character))
    }

    #[test]
    fn a_path_that_no_request_can_have_is_refused_as_a_rule() {
        for path in [
            "",
            "admin",
            "https://example.org/admin",
            "acme.v1.Reports/Get",
            "/v1/{id}",
            "/v1/{*rest}",
            "/v1/:id",
            "/v1/<id>",
            "/admin/*",
            "/admin?x",
            "/admin#x",
            "/caf%C3%A9",
            "/café",
            "/two words",
            "/admin\n",
            "/admin;x",
            "\\admin",
            "/x\\admin",
            "//admin",
            "/v1//admin",
            "/admin//",
            "/./admin",
            "/v1/../admin",
            "/v1/..",
        ] {
            assert!(can_match(path).is_err(), "{path:?}");
        }
        for path in
            ["/", "/admin", "/admin/", "/v1/tokens:verify", "/acme.v1.Reports/Get", "/a/b.c~d_e-f@g,h"]
        {
            assert_eq!(can_match(path), Ok(()), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_path_is_normalized(choices in prop::collection::vec(0_usize..7, 12)) {
            let mut spelled = String::new();
            for (at, choice) in "/v1/admin/x".chars().zip(choices) {
                match (at, choice) {
                    ('/', 1) => spelled.push_str("//"),
                    ('/', 2) => spelled.push_str("/./"),
                    ('/', 3) => spelled.push_str("/y/../"),
                    ('/', 4) => spelled.push_str("%2F"),
                    ('/', 5) => spelled.push_str(";y/"),
                    ('/', 6) => spelled.push('\\'),
                    (_, 1) => spelled.push_str(&encoded(at)),
                    (_, 2) => spelled.push_str(&encoded(at).replace('%', "%25").to_uppercase()),
                    (_, 3) => spelled.push(at.to_ascii_uppercase()),
                    _ => spelled.push(at),
                }
            }
            prop_assert_eq!(&*plain(&spelled), "/v1/admin/x", "{}", spelled);
        }

        #[test]
        fn normalizing_a_path_twice_changes_nothing(path in "\\PC{0,40}") {
            let once = plain(&path).into_owned();
            prop_assert!(once.starts_with('/'));
        }
    }
}
