//! What a client certificate allows: the configured list of names, each with its scopes and
//! organization. Called by the gRPC API for calls without a secret. Knows no TLS: the certificate has
//! already been verified.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use time::OffsetDateTime;

use super::access::Caller;
use super::principal::Principal;
use super::{CredentialError, FieldError, OrganizationId, ReservedScopes};

/// A subject alternative name after its kind (RFC 5280, 4.2.1.6), such as `dns:admin.example.org`:
/// names of different kinds never match, since a CA may check each kind by other rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectName(Arc<str>);

impl SubjectName {
    /// Accepts `dns:`, `uri:` or `email:` and a name, or `ip:` and an address.
    ///
    /// # Errors
    /// [`FieldError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        const KINDS: FieldError = FieldError::Rule(
            "must begin with its kind, such as dns:admin.example.org, uri:spiffe://example.org/gateway, \
             email:ada@example.org or ip:192.0.2.7",
        );
        match text.split_once(':') {
            Some(("dns" | "uri" | "email", name)) if !name.is_empty() => Ok(Self(text.into())),
            Some(("ip", address)) => address.parse().map(Self::ip).map_err(|_| KINDS),
            _ => Err(KINDS),
        }
    }

    /// Creates the name for a host.
    #[must_use]
    pub fn dns(name: &str) -> Self {
        Self(format!("dns:{name}").into())
    }

    /// Creates the name for a URI, for example a SPIFFE id.
    #[must_use]
    pub fn uri(name: &str) -> Self {
        Self(format!("uri:{name}").into())
    }

    /// Creates the name for an email address.
    #[must_use]
    pub fn email(name: &str) -> Self {
        Self(format!("email:{name}").into())
    }

    /// Creates the name for an IP address.
    #[must_use]
    pub fn ip(address: IpAddr) -> Self {
        Self(format!("ip:{address}").into())
    }

    /// Returns the kind, a colon and the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What clients with a certificate of one name may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMapping {
    /// The subject alternative name that the certificate has, exactly.
    pub name: SubjectName,
    /// The scopes that it grants.
    pub scopes: ReservedScopes,
    /// The organization in which the client acts.
    pub organization_id: OrganizationId,
}

/// All mappings of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateMappings(Box<[CertificateMapping]>);

/// Two mappings have the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two client certificate mappings are for the name {0}: keep one")]
pub struct DuplicateMapping(SubjectName);

impl DuplicateMapping {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.as_str()
    }
}

impl CertificateMappings {
    /// Accepts mappings with different names.
    ///
    /// # Errors
    /// [`DuplicateMapping`].
    pub fn new(mappings: Vec<CertificateMapping>) -> Result<Self, DuplicateMapping> {
        for (index, mapping) in mappings.iter().enumerate() {
            if mappings[..index].iter().any(|earlier| earlier.name == mapping.name) {
                return Err(DuplicateMapping(mapping.name.clone()));
            }
        }
        Ok(Self(mappings.into()))
    }

    /// Returns the caller for a client certificate with these names, valid until `not_after`.
    ///
    /// # Errors
    /// [`CredentialError`]: no mapping has one of the names, or several have, or the certificate has
    /// expired.
    pub fn caller(
        &self,
        names: &[SubjectName],
        not_after: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Caller, CredentialError> {
        let mut matching = self.0.iter().filter(|mapping| names.contains(&mapping.name));
        // With two mappings, their order would decide what the caller may do.
        let (Some(mapping), None) = (matching.next(), matching.next()) else {
            return Err(CredentialError::Invalid);
        };
        if now > not_after {
            return Err(CredentialError::Expired);
        }
        let principal = Principal::Certificate(Arc::clone(&mapping.name.0));
        Ok(Caller::new(principal, mapping.organization_id.clone(), mapping.scopes, Some(not_after)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Permission, ReservedScope};
    use time::Duration;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn mapping(name: &str, scope: ReservedScope) -> CertificateMapping {
        CertificateMapping {
            name: SubjectName::parse(name).unwrap(),
            scopes: [scope].into_iter().collect(),
            organization_id: OrganizationId::parse("acme").unwrap(),
        }
    }

    fn caller(names: &[&str], not_after: OffsetDateTime) -> Result<Caller, CredentialError> {
        let gateway = mapping("uri:spiffe://example.org/gateway", ReservedScope::Verify);
        let admin = mapping("dns:admin.example.org", ReservedScope::Write);
        let names: Vec<_> = names.iter().map(|&name| SubjectName(name.into())).collect();
        CertificateMappings::new(vec![gateway, admin]).unwrap().caller(&names, not_after, NOW)
    }

    #[test]
    fn a_name_allows_what_its_own_mapping_says() {
        let caller = caller(&["dns:other.example.org", "uri:spiffe://example.org/gateway"], NOW).unwrap();
        assert_eq!(caller.principal.to_string(), "cert:uri:spiffe://example.org/gateway");
        assert!(caller.require(Permission::Verify).is_ok());
        assert!(caller.require(Permission::WriteAll).is_err());
    }

    #[test]
    fn a_name_matches_exactly_or_not_at_all() {
        for name in [
            "dns:",
            "dns:Admin.example.org",
            "dns:admin.example.org.",
            "dns:x.admin.example.org",
            "dns:*.example.org",
        ] {
            assert_eq!(caller(&[name], NOW).unwrap_err(), CredentialError::Invalid, "{name}");
        }
    }

    #[test]
    fn names_of_different_kinds_differ() {
        for name in [
            SubjectName::uri("admin.example.org"),
            SubjectName::email("admin.example.org"),
            SubjectName::uri("dns:admin.example.org"),
            SubjectName::dns("dns:admin.example.org"),
        ] {
            assert_eq!(caller(&[name.as_str()], NOW).unwrap_err(), CredentialError::Invalid, "{name}");
        }
    }

    #[test]
    fn a_name_begins_with_its_kind() {
        for text in ["dns:a", "uri:spiffe://a/b", "uri:dns:a", "email:ada@example.org", "ip:192.0.2.7"] {
            assert_eq!(SubjectName::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(SubjectName::parse("ip:2001:DB8:0::1").unwrap().as_str(), "ip:2001:db8::1");
        for text in ["", "a", "dns:", "DNS:a", " dns:a", "spiffe://a/b", "ip:a", "ip:192.0.2.7/32", "other:a"]
        {
            assert!(SubjectName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_certificate_with_two_mappings_is_refused() {
        let both = ["uri:spiffe://example.org/gateway", "dns:admin.example.org"];
        assert_eq!(caller(&both, NOW).unwrap_err(), CredentialError::Invalid);
        let twice = vec![mapping("dns:a", ReservedScope::Read), mapping("dns:a", ReservedScope::Write)];
        assert!(CertificateMappings::new(twice).is_err());
    }

    #[test]
    fn a_certificate_counts_up_to_its_end_inclusive() {
        assert!(caller(&["dns:admin.example.org"], NOW).is_ok());
        let ended = caller(&["dns:admin.example.org"], NOW - Duration::seconds(1));
        assert_eq!(ended.unwrap_err(), CredentialError::Expired);
    }
}
