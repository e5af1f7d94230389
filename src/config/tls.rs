//! From flags, environment and file to the TLS files and the client certificates' mappings. Called
//! by `resolve`. Whether the files can be used is checked where they are read.

use std::path::Path;

use super::ConfigError;
use super::declared::{ClientCertificate, PartialSettings, Sources};
use crate::domain::{
    CertificateMapping, CertificateMappings, OrganizationId, ReservedScope, ReservedScopes, SubjectName,
};
use crate::transport::tls::TlsFiles;

/// The longest name that fits `created_by` after `cert:`.
const MAX_NAME_BYTES: usize = 295;

pub(super) fn tls_files(sources: &mut Sources<'_>) -> Result<Option<TlsFiles>, ConfigError> {
    let (certificate, key) = (sources.tls_certificate()?, sources.tls_key()?);
    let (client_ca, client_crl) = (sources.tls_client_ca()?, sources.tls_client_crl()?);
    let incomplete = |given, missing| Err(ConfigError::TlsIncomplete { given, missing });
    if client_crl.is_some() && client_ca.is_none() {
        return incomplete("--tls-client-crl", "--tls-client-ca");
    }
    match (certificate, key, client_ca) {
        (Some(certificate), Some(key), client_ca) => {
            Ok(Some(TlsFiles { certificate, key, client_ca, client_crl }))
        }
        (None, None, None) => Ok(None),
        (None, None, Some(_)) => incomplete("--tls-client-ca", "--tls-certificate"),
        (Some(_), None, _) => incomplete("--tls-certificate", "--tls-key"),
        (None, Some(_), _) => incomplete("--tls-key", "--tls-certificate"),
    }
}

pub(super) fn certificates(
    sources: &mut Sources<'_>,
    tls: Option<&TlsFiles>,
) -> Result<CertificateMappings, ConfigError> {
    let mapped = sources.client_certificates();
    if !mapped.is_empty() && tls.is_none_or(|files| files.client_ca.is_none()) {
        return Err(ConfigError::MappingWithoutCa);
    }
    mappings(mapped)
}

/// Reads the client certificates' mappings, and nothing else, again from a configuration file.
///
/// # Errors
/// Those of the file, and [`ConfigError::Mapping`].
pub fn read_certificates(path: &Path) -> Result<CertificateMappings, ConfigError> {
    mappings(PartialSettings::read(path)?.client_certificate)
}

fn mappings(mapped: Vec<ClientCertificate>) -> Result<CertificateMappings, ConfigError> {
    let mappings = mapped.into_iter().map(mapping).collect::<Result<Vec<_>, _>>()?;
    CertificateMappings::new(mappings)
        .map_err(|error| ConfigError::Mapping { name: error.name().to_owned(), problem: error.to_string() })
}

fn mapping(from: ClientCertificate) -> Result<CertificateMapping, ConfigError> {
    let ClientCertificate { name, scopes, organization } = from;
    let invalid = |problem: String| ConfigError::Mapping { name: name.clone(), problem };
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(invalid(format!("the name must have 1 to {MAX_NAME_BYTES} bytes")));
    }
    let subject = SubjectName::parse(&name).map_err(|error| invalid(format!("the name {error}")))?;
    let known: Result<ReservedScopes, ConfigError> = scopes
        .iter()
        .map(|word| {
            ReservedScope::from_word(word).ok_or_else(|| {
                let words = ReservedScope::ALL.into_iter().filter(|scope| *scope != ReservedScope::Own);
                let words = words.map(ReservedScope::word).collect::<Vec<_>>().join(", ");
                invalid(format!("there is no scope '{word}': use {words}"))
            })
        })
        .collect();
    let organization_id = match organization {
        None => OrganizationId::default_organization(),
        Some(text) => {
            OrganizationId::parse(&text).map_err(|error| invalid(format!("the organization {error}")))?
        }
    };
    let scopes = known?;
    if scopes.is_empty() {
        return Err(invalid("it has no scopes".to_owned()));
    }
    if scopes.contains(ReservedScope::Own) {
        return Err(invalid("a certificate has no user, so it cannot have tokend:self".to_owned()));
    }
    Ok(CertificateMapping { name: subject, scopes, organization_id })
}
