//! Reads the credential in an `authorization` header (RFC 6750). Called by the server's authentication
//! and the client.

use super::CredentialError;

/// The scheme before the secret; its case does not matter (RFC 9110).
const SCHEME: &[u8] = b"bearer ";

/// Returns the only bearer credential among the header's values.
///
/// # Errors
/// There is no value, or not exactly one of the form `Bearer <secret>`.
pub fn bearer<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<&'a str, CredentialError> {
    let mut values = values.into_iter();
    let value = values.next().ok_or(CredentialError::Missing)?;
    if values.next().is_some() {
        return Err(CredentialError::Malformed);
    }
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case(SCHEME) => {
            // One space or more (RFC 6750, 2.1; RFC 9110, 11.4).
            let begins = secret.iter().position(|byte| *byte != b' ').unwrap_or(secret.len());
            let secret = secret.get(begins..).unwrap_or_default();
            std::str::from_utf8(secret).map_err(|_| CredentialError::Malformed)
        }
        _ => Err(CredentialError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_bearer_value_is_a_credential() {
        let read = |values: &'static [&str]| bearer(values.iter().map(|value| value.as_bytes()));
        assert_eq!(read(&["Bearer abc"]), Ok("abc"));
        assert_eq!(read(&["bearer abc"]), Ok("abc"));
        assert_eq!(read(&["Bearer   abc"]), Ok("abc"));
        assert_eq!(read(&[]), Err(CredentialError::Missing));
        for bad in [&["Bearer"][..], &["Basic abc"], &["abc"], &[""], &["Bearer a", "Bearer a"]] {
            assert_eq!(read(bad), Err(CredentialError::Malformed), "{bad:?}");
        }
        assert_eq!(bearer([&b"Bearer \xff"[..]]), Err(CredentialError::Malformed));
    }
}
