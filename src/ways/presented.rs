//! Finding the secret in what came over HTTP: a bearer of RFC 6750, the one value of another header, or the
//! password of RFC 7617. More than one value is no credential. Called by each way; keeps nothing.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::domain::{CredentialError, Principal};
use crate::grpc::{CallError, bearer};
use crate::verify::AuthenticateError;

/// How a caller presents itself.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    pub(super) secret: Result<&'a str, CredentialError>,
    /// The name that stands beside a password: the token's id.
    name: Option<&'a str>,
}

/// What stands behind `Basic`, decoded.
#[derive(Default)]
pub(super) struct Basic(Zeroizing<String>);

impl Basic {
    /// Decodes the header of a call, if it is one of this scheme.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("authorization").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = BASE64_STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        Some(Self(Zeroizing::new(decoded.unwrap_or_default())))
    }
}

impl<'a> Caller<'a> {
    /// Reads who calls: by `Basic`, where that is what the headers bring, else by `Bearer`.
    pub(super) fn of(headers: &'a HeaderMap, basic: Option<&'a Basic>) -> Self {
        match basic.map(|basic| basic.0.split_once(':')) {
            None => Self { secret: bearer(headers), name: None },
            Some(None) => Self { secret: Err(CredentialError::Malformed), name: None },
            Some(Some((name, secret))) => Self { secret: Ok(secret), name: Some(name) },
        }
    }

    /// Checks that the name beside a password is that of the token which the password proves.
    pub(super) fn check_name(&self, principal: &Principal) -> Result<(), Refusal> {
        if self.name.is_none_or(|name| Principal::parse(name).as_ref() == Some(principal)) {
            return Ok(());
        }
        let error: AuthenticateError = CredentialError::Invalid.into();
        Err(CallError::from(error).into())
    }
}

/// Finds the secret that a gateway's client presents: a bearer, or all of another header.
pub(super) fn credential<'a>(
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

    /// Reads what these values present: secret and name.
    fn read(values: &[&'static str]) -> Result<(String, Option<String>), CredentialError> {
        let headers = headers(values);
        let basic = Basic::of(&headers);
        let caller = Caller::of(&headers, basic.as_ref());
        caller.secret.map(|secret| (secret.to_owned(), caller.name.map(str::to_owned)))
    }

    #[test]
    fn a_caller_is_known_by_a_bearer_or_by_name_and_password() {
        assert_eq!(read(&["Bearer abc"]), Ok(("abc".to_owned(), None)));
        // RFC 7617's own example.
        let basic = Ok(("open sesame".to_owned(), Some("Aladdin".to_owned())));
        assert_eq!(read(&["basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), basic);
        assert_eq!(read(&[]), Err(CredentialError::Missing));
        for bad in
            [&["Basic"][..], &["Basic !"], &["Basic YWJj"], &["Basic YTpi", "Basic YTpi"], &["Digest x"]]
        {
            assert_eq!(read(bad), Err(CredentialError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn another_header_is_a_credential_as_a_whole_and_only_once() {
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
