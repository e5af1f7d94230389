//! Finds the secret in an HTTP request: a bearer (RFC 6750), the only value of another header, or
//! an OAuth client's secret (RFC 6749, 2.3.1). Several values are an error. Called by each
//! integration; keeps nothing. Not by the `headers` crate: its `Basic` takes the first of several,
//! leaves decoded text in memory, and decodes no form.

use std::ops::Deref;

use axum::http::{HeaderMap, HeaderName, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::form;
use super::refusal::Refusal;
use crate::api::error::CallError;
use crate::auth::callers::bearer;
use crate::domain::{CredentialError, FieldError, Principal};
use crate::verify::AuthenticateError;

/// The credential that a caller presents.
pub(crate) struct Caller<'a> {
    secret: Result<Presented<'a>, CredentialError>,
    /// The name sent with the secret: the token's id.
    name: Option<Zeroizing<String>>,
}

/// A secret as it was sent, or decoded.
enum Presented<'a> {
    Sent(&'a str),
    Decoded(Zeroizing<String>),
}

impl Deref for Presented<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Sent(secret) => secret,
            Self::Decoded(secret) => secret,
        }
    }
}

impl<'a> Caller<'a> {
    /// Reads the caller's credential from the headers: `Basic` if that is the scheme, otherwise `Bearer`.
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let Some(encoded) = basic_credentials(headers) else {
            return Self { secret: bearer(headers).map(Presented::Sent), name: None };
        };
        match name_and_secret(encoded) {
            Some((name, secret)) => Self { secret: Ok(Presented::Decoded(secret)), name: Some(name) },
            None => Self { secret: Err(CredentialError::Malformed), name: None },
        }
    }

    /// Reads the caller's credential from the headers or from the form's `client_id` and
    /// `client_secret` (`client_secret_post`).
    ///
    /// # Errors
    /// The client authenticates in more than one way (RFC 6749, 5.2), or one of these parameters
    /// occurs more than once.
    pub(crate) fn of_client(headers: &'a HeaderMap, posted: &[u8]) -> Result<Self, Refusal> {
        const TWO: FieldError =
            FieldError::Rule("is sent together with an Authorization header: authenticate with one of them");
        let id = form::only(posted, "client_id")?;
        let Some(secret) = form::only(posted, "client_secret")? else {
            return Self::of(headers).named(id);
        };
        if headers.contains_key(header::AUTHORIZATION) {
            return Err(Refusal::parameter("client_secret", &TWO));
        }
        if id.is_none() {
            return Err(Refusal::parameter("client_id", &FieldError::Required));
        }
        Ok(Self { secret: Ok(Presented::Decoded(secret)), name: id })
    }

    /// Adds the name from a form; it must equal the one sent with the secret.
    fn named(self, id: Option<Zeroizing<String>>) -> Result<Self, Refusal> {
        match (&self.name, id) {
            (Some(name), Some(id)) if *name != id => Err(Refusal::credential(CredentialError::Invalid)),
            (None, id @ Some(_)) => Ok(Self { name: id, ..self }),
            _ => Ok(self),
        }
    }

    pub(crate) fn secret(&self) -> Result<&str, CredentialError> {
        self.secret.as_deref().map_err(|error| *error)
    }

    /// Checks that the name sent with a secret is the id of the token that the secret proves.
    pub(crate) fn check_name(&self, principal: &Principal) -> Result<(), Refusal> {
        let name = self.name.as_ref();
        if name.is_none_or(|name| Principal::parse(name).as_ref() == Some(principal)) {
            return Ok(());
        }
        let error: AuthenticateError = CredentialError::Invalid.into();
        Err(CallError::from(error).into())
    }
}

/// Returns what follows `Basic` (RFC 7617), if that is the only credential.
fn basic_credentials(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| encoded.trim_start_matches(' '))
}

/// Decodes a name and a secret. OAuth clients form-encode both: `tokd%5F…`. Text that is not
/// encoded stays unchanged, since neither contains a `%` or a `+`.
fn name_and_secret(encoded: &str) -> Option<(Zeroizing<String>, Zeroizing<String>)> {
    let bytes = BASE64_STANDARD.decode(encoded).map(Zeroizing::new).ok()?;
    let (name, secret) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some((form::decoded(name), form::decoded(secret)))
}

/// Finds the secret that a gateway's client presents: a bearer, or the whole value of another header.
pub(crate) fn credential<'a>(
    headers: &'a HeaderMap,
    name: Option<&HeaderName>,
) -> Result<&'a str, CredentialError> {
    let Some(name) = name else { return bearer(headers) };
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(CredentialError::Missing)?;
    if values.next().is_some() {
        return Err(CredentialError::Malformed);
    }
    value.to_str().map_err(|_| CredentialError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("authorization", value.parse().unwrap());
        }
        headers
    }

    /// Reads the secret and the name that these values present.
    fn read(values: &[&'static str]) -> Result<(String, Option<String>), CredentialError> {
        let headers = headers(values);
        let caller = Caller::of(&headers);
        caller.secret().map(|secret| (secret.to_owned(), caller.name.as_deref().cloned()))
    }

    #[test]
    fn a_caller_authenticates_by_bearer_or_by_name_and_password() {
        assert_eq!(read(&["Bearer abc"]), Ok(("abc".to_owned(), None)));
        // RFC 7617's own example.
        let basic = Ok(("open sesame".to_owned(), Some("Aladdin".to_owned())));
        assert_eq!(read(&["basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), basic);
        assert_eq!(read(&["Basic   QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), basic);
        // a%3Ab:tokd%5Fc and a:c&d=e, which is no form.
        assert_eq!(read(&["Basic YSUzQWI6dG9rZCU1RmM="]), Ok(("tokd_c".to_owned(), Some("a:b".to_owned()))));
        assert_eq!(read(&["Basic YTpjJmQ9ZQ=="]), Ok(("c&d=e".to_owned(), Some("a".to_owned()))));
        assert_eq!(read(&[]), Err(CredentialError::Missing));
        for bad in
            [&["Basic"][..], &["Basic !"], &["Basic YWJj"], &["Basic YTpi", "Basic YTpi"], &["Digest x"]]
        {
            assert_eq!(read(bad), Err(CredentialError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn another_header_is_a_credential_with_its_whole_value_and_only_once() {
        let name = HeaderName::from_static("x-api-key");
        let mut headers = headers(&["Bearer abc"]);
        assert_eq!(credential(&headers, None), Ok("abc"));
        assert_eq!(credential(&headers, Some(&name)), Err(CredentialError::Missing));
        headers.append(&name, "tokd_x".parse().unwrap());
        assert_eq!(credential(&headers, Some(&name)), Ok("tokd_x"));
        headers.append(&name, "tokd_y".parse().unwrap());
        assert_eq!(credential(&headers, Some(&name)), Err(CredentialError::Malformed));
    }
}
