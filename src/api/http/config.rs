//! What is configured of the ways in: parsed already, every part of it closed unless it was opened.

use std::net::IpAddr;

use super::identity::IdentityHeaders;
use crate::api::grpc::Origin;
use crate::domain::{Networks, OrganizationId, Scope};

/// What is configured of the ways in.
#[derive(Debug, Clone, Default)]
pub struct IntegrationsConfig {
    /// From where it is believed what is said of the client's address; empty: from nowhere.
    pub trusted_proxies: Networks,
    /// Whose tokens gateways let in; `None`: every organization's.
    pub gateway_organization: Option<OrganizationId>,
    /// In which headers gateways are told whose a token is.
    pub identity_headers: IdentityHeaders,
    /// Whether Envoy may ask on the gRPC port.
    pub ext_authz: bool,
    /// How Kubernetes' API servers may ask; `None`: not at all.
    pub token_review: Option<TokenReviewConfig>,
    /// Of which origins pages may call by gRPC-Web; empty: of none, and no gRPC-Web is spoken.
    pub web_origins: Vec<Origin>,
}

impl IntegrationsConfig {
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(address))
    }
}

/// What is configured of Kubernetes' token reviews.
#[derive(Debug, Clone)]
pub struct TokenReviewConfig {
    /// What a token needs for the API server itself.
    pub scope: Scope,
    /// The audiences by which the API server calls itself.
    pub audiences: Vec<String>,
}
