//! From a call's metadata to an authenticated caller. Every RPC of the service begins here. The secret goes
//! to the engine and nowhere else.

use std::net::IpAddr;

use tonic::metadata::MetadataMap;

use crate::domain::CredentialError;
use crate::verify::{AuthenticateError, Credential, Engine, Share};

/// Authenticates whoever sent this metadata, from an address that is known or not.
pub(super) async fn authenticate(
    engine: &Engine,
    metadata: &MetadataMap,
    peer: Option<IpAddr>,
) -> Result<Credential, AuthenticateError> {
    engine.authenticate(bearer(metadata)?, Share::Peer(peer)).await
}

/// Finds the one bearer credential (RFC 6750; the scheme's case does not matter, RFC 9110).
pub(super) fn bearer(metadata: &MetadataMap) -> Result<&str, CredentialError> {
    let mut values = metadata.get_all("authorization").iter();
    let value = values.next().ok_or(CredentialError::Missing)?;
    if values.next().is_some() {
        return Err(CredentialError::Malformed);
    }
    let (scheme, secret) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(CredentialError::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(secret) } else { Err(CredentialError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(values: &[&'static str]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append("authorization", value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn exactly_one_bearer_value_is_a_credential() {
        assert_eq!(bearer(&metadata(&["Bearer abc"])), Ok("abc"));
        assert_eq!(bearer(&metadata(&["bearer abc"])), Ok("abc"));
        assert_eq!(bearer(&metadata(&[])), Err(CredentialError::Missing));
        for bad in [&["Bearer"][..], &["Basic abc"], &["abc"], &[""], &["Bearer a", "Bearer a"]] {
            assert_eq!(bearer(&metadata(bad)), Err(CredentialError::Malformed), "{bad:?}");
        }
    }
}
