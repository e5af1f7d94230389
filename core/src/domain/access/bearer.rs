//! The credential in an `authorization` header (RFC 6750), wherever it is looked for.

use super::CredentialError;

/// What stands before the secret; the scheme's case does not matter (RFC 9110).
const SCHEME: &[u8] = b"bearer ";

/// Finds the one bearer credential among the header's values.
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
            std::str::from_utf8(secret).map_err(|_| CredentialError::Malformed)
        }
        _ => Err(CredentialError::Malformed),
    }
}
