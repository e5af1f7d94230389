//! From flags, environment and file to the configuration of the integrations. Called by `resolve`.
//! Everything is off unless it is asked for.

use std::net::SocketAddr;

use super::ConfigError;
use super::flags::IntegrationFlags;
use super::sources::Sources;
use super::values::TrustedProxies;
use crate::api::grpc::Origin;
use crate::api::http::config::{IntegrationsConfig, TokenReviewConfig};
use crate::api::http::identity::IdentityHeaders;
use crate::domain::{OrganizationId, Scope};

/// The default audience of a cluster's API server.
const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

pub(super) fn integrations(
    sources: &mut Sources<'_>,
    mut flags: IntegrationFlags,
    http_listen: Option<SocketAddr>,
    console_listen: Option<SocketAddr>,
) -> Result<IntegrationsConfig, ConfigError> {
    let token_review = token_review(sources, &mut flags)?;
    if token_review.is_some() && http_listen.is_none() {
        return Err(ConfigError::TokenReviewWithoutListener);
    }
    let web_origins = web_origins(sources, &mut flags)?;
    let trusted_proxies: Option<TrustedProxies> =
        sources
            .choose(flags.trusted_proxies, "TOKEND_TRUSTED_PROXIES", |file| file.trusted_proxies.take())?;
    let ext_authz = sources.is_on(flags.ext_authz, "TOKEND_EXT_AUTHZ", |file| file.ext_authz.take())?;
    let organization = sources.choose(flags.gateway_organization, "TOKEND_GATEWAY_ORGANIZATION", |file| {
        file.gateway_organization.take()
    })?;
    let organization = organization.map(|text| OrganizationId::parse(&text)).transpose();
    let organization = organization.map_err(ConfigError::GatewayOrganization)?;
    let prefix: Option<String> =
        sources.choose(flags.identity_header_prefix, "TOKEND_IDENTITY_HEADER_PREFIX", |file| {
            file.identity_header_prefix.take()
        })?;
    let identity_headers = prefix.map(|prefix| IdentityHeaders::with_prefix(&prefix)).transpose();
    let identity_headers = identity_headers.map_err(ConfigError::IdentityHeaderPrefix)?;
    let asked = ext_authz || http_listen.is_some();
    // A proxy may stand before the console, too.
    let proxied = console_listen.is_some();
    for (flag, given) in [
        ("--trusted-proxies", trusted_proxies.is_some() && !proxied),
        ("--gateway-organization", organization.is_some()),
        ("--identity-header-prefix", identity_headers.is_some()),
    ] {
        ConfigError::demand(
            flag,
            !given || asked,
            "without --http-listen or --ext-authz, through which gateways ask",
        )?;
    }
    Ok(IntegrationsConfig {
        trusted_proxies: trusted_proxies.map(TrustedProxies::get).unwrap_or_default(),
        identity_headers: identity_headers.unwrap_or_default(),
        ext_authz,
        token_review,
        web_origins,
        gateway_organization: organization,
    })
}

fn token_review(
    sources: &mut Sources<'_>,
    flags: &mut IntegrationFlags,
) -> Result<Option<TokenReviewConfig>, ConfigError> {
    let scope: Option<String> =
        sources.choose(flags.token_review.take(), "TOKEND_TOKEN_REVIEW", |file| file.token_review.take())?;
    let named = flags.token_review_audiences.take();
    let named: Option<String> =
        sources.choose(named, "TOKEND_TOKEN_REVIEW_AUDIENCES", |file| file.token_review_audiences.take())?;
    let used = named.is_none() || scope.is_some();
    ConfigError::demand("--token-review-audiences", used, "without --token-review")?;
    let named = named.unwrap_or_else(|| AUDIENCE.to_owned());
    let audiences = named.split(',').map(str::trim).filter(|audience| !audience.is_empty());
    let audiences = audiences.map(str::to_owned).collect();
    let scope = scope.map(|text| Scope::parse(&text).map_err(ConfigError::TokenReview)).transpose()?;
    Ok(scope.map(|scope| TokenReviewConfig { scope, audiences }))
}

fn web_origins(sources: &mut Sources<'_>, flags: &mut IntegrationFlags) -> Result<Vec<Origin>, ConfigError> {
    let flag = flags.grpc_web_origins.take();
    let named: Option<String> =
        sources.choose(flag, "TOKEND_GRPC_WEB_ORIGINS", |file| file.grpc_web_origins.take())?;
    let named = named.iter().flat_map(|named| named.split(',')).map(str::trim);
    named
        .zip(1..)
        .map(|(text, number)| {
            Origin::parse(text).map_err(|problem| ConfigError::WebOrigin { number, problem })
        })
        .collect()
}
