//! What a client certificate allows: the configuration's list of names, each with its scopes and organization.
//! Called by the gRPC face for calls that bring no secret. Knows no TLS: that the certificate is genuine was
//! settled before.

use std::sync::Arc;

use time::OffsetDateTime;

use super::access::Caller;
use super::principal::Principal;
use super::{CredentialError, OrganizationId, ReservedScopes};

/// What holders of certificates with one name may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateMapping {
    /// The subject alternative name (DNS or URI) that the certificate has, exactly.
    pub name: Arc<str>,
    /// What it allows.
    pub scopes: ReservedScopes,
    /// Where its holder acts.
    pub organization_id: OrganizationId,
}

/// All mappings of a server.
#[derive(Debug, Clone, Default)]
pub struct CertificateMappings(Box<[CertificateMapping]>);

/// Two mappings are for the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two client certificate mappings are for the name {0}")]
pub struct DuplicateMapping(Arc<str>);

impl DuplicateMapping {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl CertificateMappings {
    /// Takes the mappings.
    ///
    /// # Errors
    /// [`DuplicateMapping`].
    pub fn new(mappings: Vec<CertificateMapping>) -> Result<Self, DuplicateMapping> {
        for (index, mapping) in mappings.iter().enumerate() {
            if mappings[..index].iter().any(|earlier| earlier.name == mapping.name) {
                return Err(DuplicateMapping(Arc::clone(&mapping.name)));
            }
        }
        Ok(Self(mappings.into()))
    }

    /// Makes a caller of whoever holds a certificate with these names, valid until `not_after`.
    ///
    /// # Errors
    /// [`CredentialError`]: no mapping is for one of the names, or several are, or the certificate has expired.
    pub fn caller(
        &self,
        names: &[String],
        not_after: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Caller, CredentialError> {
        let mut matching = self.0.iter().filter(|mapping| names.iter().any(|name| **name == *mapping.name));
        // Two mappings would leave it to their order what the caller may do.
        let (Some(mapping), None) = (matching.next(), matching.next()) else {
            return Err(CredentialError::Invalid);
        };
        if now > not_after {
            return Err(CredentialError::Expired);
        }
        let principal = Principal::Certificate(Arc::clone(&mapping.name));
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
            name: name.into(),
            scopes: [scope].into_iter().collect(),
            organization_id: OrganizationId::parse("acme").unwrap(),
        }
    }

    fn caller(names: &[&str], not_after: OffsetDateTime) -> Result<Caller, CredentialError> {
        let gateway = mapping("spiffe://example.org/gateway", ReservedScope::Verify);
        let admin = mapping("admin.example.org", ReservedScope::Write);
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        CertificateMappings::new(vec![gateway, admin]).unwrap().caller(&names, not_after, NOW)
    }

    #[test]
    fn a_name_allows_what_its_own_mapping_says() {
        let caller = caller(&["other.example.org", "spiffe://example.org/gateway"], NOW).unwrap();
        assert_eq!(caller.principal.to_string(), "cert:spiffe://example.org/gateway");
        assert!(caller.require(Permission::Verify).is_ok());
        assert!(caller.require(Permission::Write).is_err());
    }

    #[test]
    fn a_name_matches_exactly_or_not_at_all() {
        for name in ["", "Admin.example.org", "admin.example.org.", "x.admin.example.org", "*.example.org"] {
            assert_eq!(caller(&[name], NOW).unwrap_err(), CredentialError::Invalid, "{name}");
        }
    }

    #[test]
    fn a_certificate_that_two_mappings_are_for_is_refused() {
        let both = ["spiffe://example.org/gateway", "admin.example.org"];
        assert_eq!(caller(&both, NOW).unwrap_err(), CredentialError::Invalid);
        let twice = vec![mapping("a", ReservedScope::Read), mapping("a", ReservedScope::Write)];
        assert!(CertificateMappings::new(twice).is_err());
    }

    #[test]
    fn a_certificate_counts_up_to_its_end_inclusive() {
        assert!(caller(&["admin.example.org"], NOW).is_ok());
        let ended = caller(&["admin.example.org"], NOW - Duration::seconds(1));
        assert_eq!(ended.unwrap_err(), CredentialError::Expired);
    }
}
