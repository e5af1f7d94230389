//! From flags, environment and file to the configuration of the integrations. Called by `resolve`.
//! Everything is off unless it is asked for.

use std::net::SocketAddr;

use super::ConfigError;
use super::declared::Sources;
use super::network_values::TrustedProxies;
use crate::api::http::config::{IntegrationsConfig, TokenReviewConfig};
use crate::api::http::identity::IdentityHeaders;
use crate::api::origin::Origin;
use crate::domain::{OrganizationId, Scope};

pub(super) fn integrations(
    sources: &mut Sources<'_>,
    http_listen: Option<SocketAddr>,
    console_listen: Option<SocketAddr>,
) -> Result<IntegrationsConfig, ConfigError> {
    let token_review = token_review(sources)?;
    if token_review.is_some() && http_listen.is_none() {
        return Err(ConfigError::TokenReviewWithoutListener);
    }
    let web_origins = web_origins(sources)?;
    let ext_authz = sources.ext_authz()?;
    let served = ext_authz || http_listen.is_some();
    let demand = |flag, given: bool| {
        let why = "without --http-listen or --ext-authz, through which gateways ask";
        ConfigError::demand(flag, served || !given, why)
    };
    let trusted_proxies = sources.trusted_proxies()?.map(TrustedProxies::get).unwrap_or_default();
    // A proxy may stand before the console, too.
    demand("--trusted-proxies", sources.is_given() && console_listen.is_none())?;
    let organization = sources.gateway_organization()?.map(|text| OrganizationId::parse(&text)).transpose();
    let organization = organization.map_err(ConfigError::GatewayOrganization)?;
    demand("--gateway-organization", sources.is_given())?;
    let identity_headers = IdentityHeaders::with_prefix(&sources.identity_header_prefix()?);
    let identity_headers = identity_headers.map_err(ConfigError::IdentityHeaderPrefix)?;
    demand("--identity-header-prefix", sources.is_given())?;
    Ok(IntegrationsConfig {
        trusted_proxies,
        identity_headers,
        ext_authz,
        token_review,
        web_origins,
        gateway_organization: organization,
    })
}

fn token_review(sources: &mut Sources<'_>) -> Result<Option<TokenReviewConfig>, ConfigError> {
    let scope = sources.token_review()?;
    let audiences = sources.token_review_audiences()?;
    let used = scope.is_some() || !sources.is_given();
    ConfigError::demand("--token-review-audiences", used, "without --token-review")?;
    let audiences = audiences.split(',').map(str::trim).filter(|audience| !audience.is_empty());
    let audiences = audiences.map(str::to_owned).collect();
    let scope = scope.map(|text| Scope::parse(&text).map_err(ConfigError::TokenReview)).transpose()?;
    Ok(scope.map(|scope| TokenReviewConfig { scope, audiences }))
}

fn web_origins(sources: &mut Sources<'_>) -> Result<Vec<Origin>, ConfigError> {
    origins(sources.grpc_web_origins()?.as_deref(), "--grpc-web-origins")
}

/// Parses the origins of a setting, separated by commas.
pub(super) fn origins(named: Option<&str>, setting: &'static str) -> Result<Vec<Origin>, ConfigError> {
    let named = named.into_iter().flat_map(|named| named.split(','));
    named
        .map(str::trim)
        .zip(1..)
        .map(|(text, number)| {
            Origin::parse(text).map_err(|problem| ConfigError::ListedOrigin { setting, number, problem })
        })
        .collect()
}
