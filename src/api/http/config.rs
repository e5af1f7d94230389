//! The configuration of the integrations, already parsed; everything is off unless it was turned on.

use std::net::IpAddr;

use super::identity::IdentityHeaders;
use crate::api::origin::Origin;
use crate::domain::{Networks, OrganizationId, Scope};

/// The configuration of the integrations.
#[derive(Debug, Clone, Default)]
pub struct IntegrationsConfig {
    /// Proxies whose `X-Forwarded-For` is trusted; empty: none.
    pub trusted_proxies: Networks,
    /// The organization whose tokens gateways admit; `None`: every organization.
    pub gateway_organization: Option<OrganizationId>,
    /// The names of the identity headers that gateways receive.
    pub identity_headers: IdentityHeaders,
    /// Whether Envoy may ask on the gRPC port.
    pub ext_authz: bool,
    /// The settings of Kubernetes' token reviews; `None`: off.
    pub token_review: Option<TokenReviewConfig>,
    /// The origins whose pages may use gRPC-Web; empty: gRPC-Web is off.
    pub web_origins: Vec<Origin>,
}

impl IntegrationsConfig {
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }
}

/// The settings of Kubernetes' token reviews.
#[derive(Debug, Clone)]
pub struct TokenReviewConfig {
    /// The scope that a token needs for the API server itself.
    pub scope: Scope,
    /// The audiences of the API server itself.
    pub audiences: Vec<String>,
}
