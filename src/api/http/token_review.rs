//! `POST /tokenreview`: the webhook that Kubernetes' API server calls to check bearer tokens
//! (`authentication.k8s.io/v1`). It is a caller with `tokend:verify`; audiences are scopes. A refusal
//! has no reason; if the verdict is not known, the response is 503, never "not authenticated".

use std::borrow::Cow;
use std::net::IpAddr;

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::TokenReviewConfig;
use super::gate::Admission;
use super::identity::Identity;
use super::integrations::{Integrations, Requirements};
use super::limit_headers::Limits;
use super::presented::Caller;
use super::refusal::Refusal;
use crate::auth::peer::Peer;
use crate::domain::{FieldError, Permission, Reach, Scope, Scopes, Verdict, percent};
use crate::metrics::Integration;

const VERSION: &str = "authentication.k8s.io/v1";
const KIND: &str = "TokenReview";

/// The text that a client with a bad token sees.
const NOT_ACCEPTED: &str = "the token is not accepted";

/// The text for a token with a plan whose limit is used up.
const USED_UP: &str = "a limit of the token is used up";

impl TokenReviewConfig {
    /// Returns the scope that an audience requires; `None`: no token can have it.
    fn required(&self, audience: &str) -> Option<Scope> {
        if self.audiences.iter().any(|own| own == audience) {
            return Some(self.scope.clone());
        }
        Scope::parse(audience).ok()
    }
}

/// A posted review. It holds a secret, so it has no `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(default)]
    audiences: Option<Vec<String>>,
}

impl<'a> Review<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Refusal> {
        const NONE: FieldError = FieldError::Rule("is not a TokenReview of authentication.k8s.io/v1");
        let read = serde_json::from_slice(body).ok();
        let read = read.filter(|review: &Self| review.api_version == VERSION && review.kind == KIND);
        read.ok_or_else(|| Refusal::parameter("body", &NONE))
    }
}

impl Integrations {
    /// Answers a posted `TokenReview`, with the limits of its token.
    pub(crate) async fn review(
        &self,
        config: &TokenReviewConfig,
        peer: &Peer,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(Value, Option<Limits>), Refusal> {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let reviewed = self.call(Integration::TokenReview, Some(peer.address.ip()), traceparent, async {
            let credential = self.caller(&Caller::of(headers), peer).await?;
            let caller = credential.caller();
            caller.require(Permission::Verify)?;
            let Spec { token, audiences } = Review::read(body)?.spec;
            let organization = match caller.verify_reach() {
                Reach::Any => None,
                Reach::Only(organization) => Some(organization.clone()),
            };
            // No audience named: the API server's own.
            let requested: Vec<_> = match audiences.filter(|audiences| !audiences.is_empty()) {
                None => vec![(None, config.scope.clone())],
                Some(audiences) => {
                    let known =
                        |audience: String| config.required(&audience).map(|scope| (Some(audience), scope));
                    audiences.into_iter().filter_map(known).collect()
                }
            };
            let requirements = Requirements { organization, ..Requirements::default() };
            self.admit_for(requested, &token, requirements, peer.address.ip()).await
        });
        match reviewed.await {
            Ok((admission, audiences)) => {
                Ok((reply(&authenticated(&admission.identity, &audiences)), admission.limits))
            }
            // An error would be repeated by the API server.
            Err(Refusal::Denied {
                verdict: Verdict::RateLimited | Verdict::CreditsExhausted,
                limits,
                ..
            }) => Ok((reply(&json!({"authenticated": false, "error": USED_UP})), limits)),
            Err(Refusal::Denied { .. }) => {
                Ok((reply(&json!({"authenticated": false, "error": NOT_ACCEPTED})), None))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Admits a token for those of these audiences that it is valid for, if any.
    async fn admit_for(
        &self,
        mut requested: Vec<(Option<String>, Scope)>,
        token: &str,
        mut requirements: Requirements,
        gateway: IpAddr,
    ) -> Result<(Admission, Vec<String>), Refusal> {
        if requested.is_empty() {
            return Err(Refusal::denied(Verdict::MissingScope));
        }
        requirements.required = required(&requested)?;
        let mut outcome = self.admit(Ok(token), &requirements, Some(gateway)).await;
        if let Err(Refusal::Denied { verdict: Verdict::MissingScope, missing, .. }) = &outcome {
            requested.retain(|(_, scope)| !missing.contains(scope));
            if !requested.is_empty() {
                // Asked again for these alone: only the engine admits.
                requirements.required = required(&requested)?;
                outcome = self.admit(Ok(token), &requirements, Some(gateway)).await;
            }
        }
        Ok((outcome?, requested.into_iter().filter_map(|(audience, _)| audience).collect()))
    }
}

fn required(requested: &[(Option<String>, Scope)]) -> Result<Scopes, Refusal> {
    let scopes = Scopes::new(requested.iter().map(|(_, scope)| scope.clone()).collect());
    scopes.map_err(|error| Refusal::parameter("spec.audiences", &error))
}

/// Describes the user of a token. No `uid`: tokend keeps no users, and could not distinguish one
/// from a later one of the same name.
fn authenticated(identity: &Identity, audiences: &[String]) -> Value {
    let token = &identity.0;
    let group = group(&token.organization_id);
    json!({
        "authenticated": true,
        "user": {
            "username": format!("{group}:{}", percent::encoded(&token.user_id)),
            "groups": [group],
            "extra": {"tokend/token-id": [token.id], "tokend/scopes": token.scopes},
        },
        "audiences": audiences,
    })
}

/// Names an organization's group. The rest of a user's name can be any text, so colons in the
/// organization are escaped: no user id can produce another organization's name.
fn group(organization_id: &str) -> String {
    format!("tokend:{}", percent::encoded(organization_id).replace(':', "%3A"))
}

/// Builds the reply. It does not repeat the token, although the schema has a field for it.
fn reply(status: &Value) -> Value {
    json!({"apiVersion": VERSION, "kind": KIND, "spec": {"token": ""}, "status": status})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::proto::Token;

    fn username(organization_id: &str, user_id: &str) -> String {
        let (organization_id, user_id) = (organization_id.to_owned(), user_id.to_owned());
        let identity = Identity(Token { organization_id, user_id, ..Token::default() });
        authenticated(&identity, &[])["user"]["username"].as_str().unwrap().to_owned()
    }

    #[test]
    fn user_names_of_different_organizations_differ() {
        assert_eq!(username("acme", "ada"), "tokend:acme:ada");
        assert_eq!(username("acme", "dev:ada@x"), "tokend:acme:dev:ada@x");
        assert_eq!(username("acme:dev", "ada@x"), "tokend:acme%3Adev:ada@x");
        assert_eq!(username("acme%3Adev", "a b"), "tokend:acme%253Adev:a%20b");
    }

    #[test]
    fn only_a_token_review_of_this_version_is_read() {
        let read = |version: &str, kind: &str, spec: &str| {
            let body =
                format!(r#"{{"apiVersion":"{version}","kind":"{kind}","metadata":null,"spec":{spec}}}"#);
            Review::read(body.as_bytes())
                .ok()
                .map(|review| (review.spec.token.into_owned(), review.spec.audiences))
        };
        let version = "authentication.k8s.io/v1";
        let audiences = Some(vec!["a".to_owned()]);
        let found = read(version, "TokenReview", r#"{"token":"x\u0041","audiences":["a"]}"#);
        assert_eq!(found, Some(("xA".to_owned(), audiences)));
        let none = r#"{"token":"","audiences":null}"#;
        assert_eq!(read(version, "TokenReview", none), Some((String::new(), None)));
        assert_eq!(read("authentication.k8s.io/v1beta1", "TokenReview", none), None);
        assert_eq!(read(version, "SubjectAccessReview", none), None);
        for spec in ["{}", "null", r#"{"token":7}"#] {
            assert_eq!(read(version, "TokenReview", spec), None, "{spec}");
        }
    }
}
