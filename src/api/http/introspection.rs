//! Token introspection (RFC 7662): a resource server, a caller with `tokend:verify`, asks about a
//! secret. Any verdict but VALID is `{"active": false}` and nothing else; a used up limit is 429, since the token
//! is active. If the verdict is not known, the response is 503, never inactive.

use std::net::IpAddr;

use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use tracing::{Span, field};

use super::form::Form;
use super::forward_auth::parse_scopes;
use super::identity::Identity;
use super::integrations::{self, Integrations};
use super::limit_headers::Limits;
use super::presented::Caller;
use super::refusal::Refusal;
use crate::auth::peer::Peer;
use crate::domain::plan::PlanName;
use crate::domain::{FieldError, Permission, Verdict};
use crate::metrics::Integration;
use crate::verify::{ClientKey, Criteria};

/// The parameters that are read.
const PARAMETERS: [&str; 6] = ["token", "token_type_hint", "scope", "client_ip", "cost", "limit"];

impl Integrations {
    /// Answers a posted form, with the limits of its token; all parameters but the first two are extensions, which RFC 7662, 2.1
    /// allows.
    pub(crate) async fn introspect(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(Value, Option<Limits>), Refusal> {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        self.call(Integration::Introspection, Some(peer.address.ip()), traceparent, async {
            let credential = self.caller(&Caller::of_client(headers, body)?, peer).await?;
            let caller = credential.caller();
            caller.require(Permission::Verify)?;
            let form = Form::read_loosely(body, &PARAMETERS)?;
            let required = parse_scopes("scope", form.get("scope").into_iter())?;
            let limit = form.parse("limit", PlanName::parse)?;
            let criteria = Criteria {
                required: &required,
                reach: caller.verify_reach(),
                client_ip: form.parse("client_ip", address)?,
                charged_to: ClientKey::from(caller),
                cost: form.parse("cost", integrations::cost)?.unwrap_or(1),
                limit: limit.as_ref().map(PlanName::as_str),
            };
            let mut answer = self.verify(form.require("token")?, &criteria).await?;
            let limits = Limits::of(&mut answer);
            let identity = answer.token.as_ref().and_then(|(record, _)| Identity::of(record));
            match (answer.verdict, identity) {
                (Verdict::Valid, Some(identity)) => Ok((active(&identity), limits)),
                (verdict @ (Verdict::RateLimited | Verdict::CreditsExhausted), _) => {
                    Err(Refusal::Denied { verdict, missing: Vec::new(), limits })
                }
                _ => Ok((json!({"active": false}), None)),
            }
        })
        .await
    }
}

fn address(text: &str) -> Result<IpAddr, FieldError> {
    text.parse().map_err(|_| FieldError::Rule("is not an IP address"))
}

/// Describes a valid token with the members of RFC 7662, 2.2; `organization_id` is an extension of tokend.
fn active(identity: &Identity) -> Value {
    let token = &identity.0;
    Span::current().record("user.id", field::display(&token.user_id));
    let mut members = Map::new();
    members.insert("active".to_owned(), true.into());
    // The grammar of scopes (RFC 6749, 3.3) has no empty list.
    if !token.scopes.is_empty() {
        members.insert("scope".to_owned(), identity.scopes().into());
    }
    members.insert("token_type".to_owned(), "Bearer".into());
    members.insert("sub".to_owned(), token.user_id.clone().into());
    members.insert("jti".to_owned(), token.id.clone().into());
    members.insert("organization_id".to_owned(), token.organization_id.clone().into());
    // Whole seconds, rounded down: the expiration is reported too early rather than too late.
    if let Some(time) = &token.create_time {
        members.insert("iat".to_owned(), time.seconds.into());
    }
    if let Some(time) = &token.expire_time {
        members.insert("exp".to_owned(), time.seconds.into());
    }
    Value::Object(members)
}
