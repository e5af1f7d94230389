//! The link "New like this one": the URL of a form for a token like another one. A link fills in neither a `tokend:` scope
//! nor that the token never expires. A pure function, used by the page of a token.

use form_urlencoded::Serializer;

use super::terms::is_reserved;
use crate::domain::{OwnerKind, Scope, Token};

/// Returns the address; with the organization for those who see several.
pub(super) fn address(token: &Token, organizations: bool) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("name", token.name.as_str());
    query.append_pair("user", token.user_id.as_str());
    if token.owner_kind == OwnerKind::Service {
        query.append_pair("owner", token.owner_kind.word());
    }
    if organizations {
        query.append_pair("organization", token.organization_id.as_str());
    }
    // The end of a rotated token is that of its grace.
    let end = token.expire_time.filter(|_| token.superseded_by.is_none());
    let seconds = end.map(|end| end.unix_timestamp().saturating_sub(token.create_time.unix_timestamp()));
    if let Some(seconds) = seconds.filter(|seconds| seconds % 86_400 == 0) {
        query.append_pair("expiration", &format!("{}d", seconds / 86_400));
    }
    for scope in token.scopes.iter().map(Scope::as_str).filter(|scope| !is_reserved(scope)) {
        query.append_pair("scope", scope);
    }
    for (key, value) in token.labels.iter() {
        query.append_pair("label", &format!("{key}={value}"));
    }
    for network in token.allowed_cidrs.iter() {
        query.append_pair("network", &network.to_string());
    }
    format!("/tokens/new?{}", query.finish())
}
