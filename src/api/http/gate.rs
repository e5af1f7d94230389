//! Admission for gateways. They have no credential of their own and present their client's, so a
//! wrong secret is charged to the client that sent it.

use std::net::IpAddr;

use tracing::{Span, field};

use super::identity::Identity;
use super::integrations::{Integrations, Wanted};
use super::refusal::Refusal;
use crate::domain::{CredentialError, FieldError, Reach, Verdict};
use crate::verify::{ClientKey, Question};

impl Integrations {
    /// Admits the client that presents this secret through a gateway at `gateway`, or returns why not.
    pub(crate) async fn admit(
        &self,
        secret: Result<&str, CredentialError>,
        wanted: &Wanted,
        gateway: Option<IpAddr>,
    ) -> Result<Identity, Refusal> {
        let secret = secret.map_err(Refusal::credential)?;
        let source = wanted.client_ip.or(gateway);
        let question = Question {
            required: &wanted.required,
            reach: self.reach(wanted)?,
            client_ip: wanted.client_ip,
            share: ClientKey::Peer(source),
        };
        let answer = self.ask(secret, &question).await?;
        let identity = answer.token.as_ref().and_then(|(record, _)| Identity::of(record));
        match (answer.verdict, identity) {
            (Verdict::Valid, _) if wanted.unmeetable => {
                Err(Refusal::Denied { verdict: Verdict::MissingScope, missing: Vec::new() })
            }
            (Verdict::Valid, Some(identity)) => {
                Span::current().record("user.id", field::display(&identity.0.user_id));
                Ok(identity)
            }
            (verdict, _) => {
                self.hold(verdict, source).await?;
                Err(Refusal::Denied { verdict, missing: answer.missing_scopes })
            }
        }
    }

    /// Returns the organizations whose tokens are admitted: a request may narrow the configured
    /// reach, never widen it.
    fn reach<'a>(&'a self, wanted: &'a Wanted) -> Result<Reach<'a>, Refusal> {
        match (&self.config.gateway_organization, &wanted.organization) {
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
