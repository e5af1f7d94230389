//! `GET /auth`: a gateway sends its client's headers and asks whether to admit the request. For nginx's
//! `auth_request`, Traefik's `ForwardAuth`, Caddy's `forward_auth` and others that take 2xx for yes and
//! pass on 401 and 403. Requirements are in the query, which the gateway writes, and in a header, which
//! can only add requirements.

use axum::http::{HeaderMap, HeaderName};

use super::form::Form;
use super::gate::Admission;
use super::integrations::{self, Integrations, Requirements};
use super::refusal::Refusal;
use super::{client_address, presented};
use crate::auth::peer::Peer;
use crate::domain::plan::PlanName;
use crate::domain::{FieldError, OrganizationId, Scope, Scopes};
use crate::metrics::Integration;

/// The header that may name required scopes.
pub(crate) const REQUIRED: &str = "x-tokend-require-scopes";

/// What the gateway's query or configuration may have.
pub(crate) const PARAMETERS: [&str; 5] = ["scope", "organization", "header", "cost", "limit"];

impl Integrations {
    pub(crate) async fn forward_auth(
        &self,
        peer: &Peer,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Admission, Refusal> {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        self.call(Integration::ForwardAuth, Some(peer.address.ip()), traceparent, async {
            let gateway = peer.address.ip();
            let form = Form::read(query.as_bytes(), &PARAMETERS)?;
            let name = form.parse("header", header_name)?;
            let (required, unmeetable) = scopes(form.get("scope"), headers)?;
            let organization = form.parse("organization", OrganizationId::parse)?;
            let client_ip = client_address::forwarded(&self.config, gateway, headers);
            let cost = form.parse("cost", integrations::cost)?;
            let limit = form.parse("limit", PlanName::parse)?;
            let requirements = Requirements { cost, limit, required, unmeetable, organization, client_ip };
            self.admit(presented::credential(headers, name.as_ref()), &requirements, Some(gateway)).await
        })
        .await
    }
}

pub(crate) fn header_name(text: &str) -> Result<HeaderName, FieldError> {
    text.parse().map_err(|_| FieldError::Rule("is not the name of a header"))
}

/// Reads the scopes that the gateway's configuration and the header require, and whether the header
/// names one that no token can have. The header may come from the client, so an error in it does
/// not make the gateway's request invalid: nginx treats a 400 as its own failure.
pub(crate) fn scopes(query: Option<&str>, headers: &HeaderMap) -> Result<(Scopes, bool), Refusal> {
    let configured = parse_scopes("scope", query.into_iter())?;
    let texts: Option<Vec<_>> = headers.get_all(REQUIRED).iter().map(|value| value.to_str().ok()).collect();
    let all = texts.and_then(|texts| parse_scopes("scope", query.into_iter().chain(texts)).ok());
    Ok(all.map_or((configured, true), |all| (all, false)))
}

/// Reads lists of scopes that are separated by spaces or commas.
pub(crate) fn parse_scopes<'a>(field: &str, texts: impl Iterator<Item = &'a str>) -> Result<Scopes, Refusal> {
    let words = texts.flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty());
    let parsed = words.map(Scope::parse).collect::<Result<Vec<_>, _>>().and_then(Scopes::new);
    parsed.map_err(|error| Refusal::parameter(field, &error))
}
