//! Admission for gateways. They have no credential of their own and present their client's, so a
//! wrong secret is charged to the client that sent it.

use std::net::IpAddr;

use tracing::{Span, field};

use super::identity::Identity;
use super::integrations::{Integrations, Requirements};
use super::limit_headers::Limits;
use super::refusal::Refusal;
use crate::domain::plan::PlanName;
use crate::domain::{CredentialError, FieldError, Reach, Verdict};
use crate::verify::{ClientKey, Criteria};

/// A client that is admitted.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) identity: Identity,
    /// The limits of its token, if it has some.
    pub(crate) limits: Option<Limits>,
}

impl Integrations {
    /// Admits the client that presents this secret through a gateway at `gateway`, or returns why not.
    pub(crate) async fn admit(
        &self,
        secret: Result<&str, CredentialError>,
        requirements: &Requirements,
        gateway: Option<IpAddr>,
    ) -> Result<Admission, Refusal> {
        let secret = secret.map_err(Refusal::credential)?;
        let source = requirements.client_ip.or(gateway);
        let criteria = Criteria {
            required: &requirements.required,
            reach: self.reach(requirements)?,
            client_ip: requirements.client_ip,
            charged_to: ClientKey::peer(source),
            // What no token can meet is refused below, so it must not spend.
            cost: if requirements.unmeetable { 0 } else { requirements.cost.unwrap_or(1) },
            limit: requirements.limit.as_ref().map(PlanName::as_str),
        };
        let mut answer = self.verify(secret, &criteria).await?;
        let limits = Limits::of(&mut answer);
        let identity = answer.token.as_ref().and_then(|(record, _)| Identity::of(record));
        match (answer.verdict, identity) {
            (Verdict::Valid, _) if requirements.unmeetable => Err(Refusal::denied(Verdict::MissingScope)),
            (Verdict::Valid, Some(identity)) => {
                Span::current().record("user.id", field::display(&identity.0.user_id));
                Ok(Admission { identity, limits })
            }
            (verdict, _) => {
                self.hold(verdict, source).await?;
                Err(Refusal::Denied { verdict, missing: answer.missing_scopes, limits })
            }
        }
    }

    /// Returns the organizations whose tokens are admitted: a request may narrow the configured
    /// reach, never widen it.
    fn reach<'a>(&'a self, requirements: &'a Requirements) -> Result<Reach<'a>, Refusal> {
        match (&self.config.gateway_organization, &requirements.organization) {
            (None, None) => Ok(Reach::Any),
            (Some(only), None) | (None, Some(only)) => Ok(Reach::Only(only)),
            (Some(only), Some(named)) if only == named => Ok(Reach::Only(only)),
            (Some(_), Some(_)) => {
                const OTHER: FieldError = FieldError::Rule("is not the one of --gateway-organization");
                Err(Refusal::parameter("organization", &OTHER))
            }
        }
    }
}
