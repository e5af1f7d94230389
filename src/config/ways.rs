//! From flags, environment and file to what is open beside the RPCs, and to whom.
//!
//! Called by `resolve`. Nothing is open that was not asked for.

use super::ConfigError;
use super::flags::WayFlags;
use super::sources::Sources;
use super::values::TrustedProxies;
use crate::domain::OrganizationId;
use crate::ways::WaysConfig;

pub(super) fn ways(sources: &mut Sources<'_>, flags: WayFlags) -> Result<WaysConfig, ConfigError> {
    let trusted_proxies = sources
        .choose(flags.trusted_proxies, "TOKEND_TRUSTED_PROXIES", |file| file.trusted_proxies.take())?
        .map(TrustedProxies::get)
        .unwrap_or_default();
    let ext_authz = sources.is_on(flags.ext_authz, "TOKEND_EXT_AUTHZ", |file| file.ext_authz.take())?;
    let organization = sources.choose(flags.gateway_organization, "TOKEND_GATEWAY_ORGANIZATION", |file| {
        file.gateway_organization.take()
    })?;
    let organization = organization.map(|text| OrganizationId::parse(&text)).transpose();
    Ok(WaysConfig {
        trusted_proxies,
        ext_authz,
        gateway_organization: organization.map_err(ConfigError::GatewayOrganization)?,
    })
}
