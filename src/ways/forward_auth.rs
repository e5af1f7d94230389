//! `GET /auth`: a gateway asks, with the headers of its client's request, whether to let it through. For nginx's
//! `auth_request`, Traefik's `ForwardAuth`, Caddy's `forward_auth` and whatever else takes 2xx for yes and hands on
//! 401 and 403. What is required stands in the query, which the gateway writes, and in a header; a client that sends
//! that header itself can only ask more of itself.

use axum::http::{HeaderMap, HeaderName};

use super::form::Form;
use super::identity::Identity;
use super::refusal::Refusal;
use super::{Wanted, Ways, client, presented};
use crate::domain::{FieldError, OrganizationId, Scope, Scopes};
use crate::listener::Peer;
use crate::metrics::Way;

/// The header that may name required scopes.
pub(super) const REQUIRED: &str = "x-tokend-require-scopes";

impl Ways {
    pub(super) async fn forward_auth(
        &self,
        peer: &Peer,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Identity, Refusal> {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        self.call(Way::ForwardAuth, Some(peer.address.ip()), traceparent, async {
            let gateway = peer.address.ip();
            let form = Form::read(query.as_bytes(), &["scope", "organization", "header"])?;
            let name = form.parse("header", header_name)?;
            let required = scopes(form.get("scope"), headers)?;
            let wanted = Wanted {
                required,
                organization: form.parse("organization", OrganizationId::parse)?,
                client_ip: client::forwarded(&self.config, gateway, headers),
            };
            self.admit(presented::credential(headers, name.as_ref()), &wanted, Some(gateway)).await
        })
        .await
    }
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, FieldError> {
    text.parse().map_err(|_| FieldError::Rule("is not the name of a header"))
}

/// Reads the scopes that a gateway's configuration and the header name.
pub(super) fn scopes(query: Option<&str>, headers: &HeaderMap) -> Result<Scopes, Refusal> {
    let mut texts = query.into_iter().collect::<Vec<_>>();
    for value in headers.get_all(REQUIRED) {
        texts.push(
            value.to_str().map_err(|_| Refusal::parameter(REQUIRED, &FieldError::Rule("is not ASCII")))?,
        );
    }
    parse_scopes("scope", texts.into_iter())
}

/// Reads lists of scopes that are separated by spaces or commas.
pub(super) fn parse_scopes<'a>(field: &str, texts: impl Iterator<Item = &'a str>) -> Result<Scopes, Refusal> {
    let words = texts.flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty());
    let parsed = words.map(Scope::parse).collect::<Result<Vec<_>, _>>().and_then(Scopes::new);
    parsed.map_err(|error| Refusal::parameter(field, &error))
}
