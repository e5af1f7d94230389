//! One request, sent through every integration, and the response of each in a form that can be compared.

use std::sync::OnceLock;

use serde_json::{Value, json};
use tokend::api::http::config::{IntegrationsConfig, TokenReviewConfig};
use tokend::api::origin::Origin;
use tokend::api::proto::{Consistency, VerifyRequest};
use tokend::domain::{Network, Networks, Scope};

use super::rust_client::Verifiers;
use super::{ext_authz, grpc_web};
use crate::support::client::{Client, created_with, texts};
use crate::support::http::{Reply, post, send};
use crate::support::replica::{Installation, Replica};

/// A credential to be judged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Case {
    pub(crate) secret: String,
    pub(crate) required: Vec<&'static str>,
    pub(crate) client: Option<&'static str>,
}

impl Case {
    /// Returns the request for Verify.
    pub(crate) fn request(&self) -> VerifyRequest {
        VerifyRequest {
            secret: self.secret.clone(),
            required_scopes: texts(&self.required),
            client_ip: self.client.unwrap_or_default().to_owned(),
            consistency: Consistency::Bounded.into(),
            ..VerifyRequest::default()
        }
    }
}

/// The response to a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is accepted; the token and its owner.
    Admitted { user: String, organization: String, token_id: String },
    /// It is refused, for this reason.
    Denied(String),
    /// It is refused, and this integration gives no reasons.
    Inactive,
    /// Nothing is known.
    Unknown,
}

impl Decision {
    /// Returns whether two integrations agree, as far as both give details.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inactive, Self::Denied(_)) | (Self::Denied(_), Self::Inactive) => true,
            _ => self == other,
        }
    }
}

/// The scope that a token needs for Kubernetes' API server, and that server's audience.
pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const AUDIENCE: &str = "https://kubernetes.default.svc";

/// The origin of a page that may call.
pub(crate) const ORIGIN: &str = "https://admin.example.org";

/// Every integration, except Verify as most clients send it, which takes the fast path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    /// Verify in a form that only the router accepts.
    Routed,
    /// Verify, read from the database.
    Full,
    Stream,
    Introspection,
    ForwardAuth,
    ExtAuthz,
    TokenReview,
    GrpcWeb,
    ClientUnary,
    ClientMultiplexed,
    ClientLocal,
    ClientGuard,
}

impl Interface {
    pub(crate) const ALL: [Self; 12] = [
        Self::Routed,
        Self::Full,
        Self::Stream,
        Self::Introspection,
        Self::ForwardAuth,
        Self::ExtAuthz,
        Self::TokenReview,
        Self::GrpcWeb,
        Self::ClientUnary,
        Self::ClientMultiplexed,
        Self::ClientLocal,
        Self::ClientGuard,
    ];

    /// Returns whether this integration may answer from what it knows, within the staleness that it
    /// declares.
    pub(crate) fn judges_by_itself(self) -> bool {
        matches!(self, Self::ClientLocal | Self::ClientGuard)
    }

    /// Returns the part of a case that this integration can ask: a `TokenReview` has no client
    /// address.
    pub(crate) fn askable(self, case: &Case) -> Case {
        let client = case.client.filter(|_| self != Self::TokenReview);
        Case { client, ..case.clone() }
    }
}

/// A replica with every integration enabled, a backend of the organization `acme` that verifies,
/// and gateways that accept tokens of `acme`.
pub(crate) struct Fixture {
    pub(crate) replica: Replica,
    pub(crate) backend: String,
    pub(crate) verifier: Client,
    verifiers: OnceLock<Verifiers>,
}

/// Returns the configuration of integrations that trust this machine's gateways.
pub(crate) fn trusting() -> IntegrationsConfig {
    let loopback = Networks::new(vec![Network::parse("127.0.0.0/8").unwrap()]).unwrap();
    let token_review =
        TokenReviewConfig { scope: Scope::parse(CLUSTER).unwrap(), audiences: vec![AUDIENCE.to_owned()] };
    IntegrationsConfig {
        trusted_proxies: loopback,
        ext_authz: true,
        token_review: Some(token_review),
        web_origins: vec![Origin::parse(ORIGIN).unwrap()],
        ..IntegrationsConfig::default()
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let installation = Installation::new().await;
        let mut config = installation.config();
        config.integrations = trusting();
        Self::of(installation.serve(config).await).await
    }

    pub(crate) async fn of(replica: Replica) -> Self {
        let backend = created_with(&mut replica.root(), "acme", &["tokend:verify"]).await.secret;
        let verifier = replica.client(&backend);
        Self { replica, backend, verifier, verifiers: OnceLock::new() }
    }

    fn verifiers(&self) -> &Verifiers {
        self.verifiers.get_or_init(|| Verifiers::open(self.replica.address, &self.backend))
    }

    /// Sends a case through one of the other integrations.
    pub(crate) async fn ask(&self, interface: Interface, case: &Case) -> Decision {
        match interface {
            Interface::Routed => self.routed(case).await,
            Interface::Full => self.full(case).await,
            Interface::Stream => self.stream(case).await,
            Interface::Introspection => self.introspect(case).await,
            Interface::ForwardAuth => self.forward_auth(case).await,
            Interface::ExtAuthz => ext_authz::ask(&self.replica, case).await,
            Interface::TokenReview => self.token_review(case).await,
            Interface::GrpcWeb => grpc_web::ask(self, case).await,
            Interface::ClientUnary => self.verifiers().ask_unary(case).await,
            Interface::ClientMultiplexed => self.verifiers().ask_multiplexed(case).await,
            Interface::ClientLocal => self.verifiers().ask_local(case).await,
            Interface::ClientGuard => self.verifiers().ask_guard(case).await,
        }
    }

    /// Posts a form as the backend.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let bearer = format!("Bearer {}", self.backend);
        post(self.replica.http, path, &[("authorization", &bearer)], fields).await
    }

    async fn introspect(&self, case: &Case) -> Decision {
        let scope = case.required.join(" ");
        let fields =
            [("token", &*case.secret), ("scope", &scope), ("client_ip", case.client.unwrap_or_default())];
        let reply = self.post("/oauth2/introspect", &fields).await;
        if reply.status == 503 {
            return Decision::Unknown;
        }
        assert_eq!(reply.status, 200, "{reply:?}");
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        if body["active"] != true {
            assert_eq!(reply.body, r#"{"active":false}"#);
            return Decision::Inactive;
        }
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Decision::Admitted { user: text("sub"), organization: text("organization_id"), token_id: text("jti") }
    }

    /// Posts a `TokenReview` as the backend.
    pub(crate) async fn review(&self, secret: &str, audiences: &[&str]) -> Reply {
        let bearer = format!("Bearer {}", self.backend);
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        let body = review(secret, audiences).to_string();
        send(self.replica.http, "POST", "/tokenreview", &headers, &body).await
    }

    async fn token_review(&self, case: &Case) -> Decision {
        let reply = self.review(&case.secret, &case.required).await;
        if reply.status == 503 {
            return Decision::Unknown;
        }
        assert_eq!(reply.status, 200, "{reply:?}");
        let status = &serde_json::from_str::<Value>(&reply.body).unwrap()["status"];
        // Only some of them may have been granted.
        if status["authenticated"] != true || status["audiences"] != json!(case.required) {
            return Decision::Inactive;
        }
        let name = status["user"]["username"].as_str().unwrap();
        let (organization, user) = name.strip_prefix("tokend:").unwrap().split_once(':').unwrap();
        Decision::Admitted {
            user: user.to_owned(),
            organization: organization.to_owned(),
            token_id: status["user"]["extra"]["tokend/token-id"][0].as_str().unwrap().to_owned(),
        }
    }

    async fn forward_auth(&self, case: &Case) -> Decision {
        let path = format!("/auth?organization=acme&scope={}", case.required.join("+"));
        let bearer = format!("Bearer {}", case.secret);
        let mut headers = vec![("authorization", &*bearer)];
        headers.extend(case.client.map(|client| ("x-forwarded-for", client)));
        let reply = send(self.replica.http, "GET", &path, &headers, "").await;
        decision_over_http(&reply, |name| reply.header(name).unwrap())
    }
}

/// Returns the body that Kubernetes' API server posts.
pub(crate) fn review(secret: &str, audiences: &[&str]) -> Value {
    let mut spec = json!({"token": secret});
    if !audiences.is_empty() {
        spec["audiences"] = json!(audiences);
    }
    let metadata = json!({"creationTimestamp": null});
    json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": metadata, "spec": spec})
}

/// Reads a gate's HTTP response; `header_of` returns its headers on the accepted token.
pub(crate) fn decision_over_http(reply: &Reply, header_of: impl Fn(&str) -> String) -> Decision {
    match reply.status {
        200 => Decision::Admitted {
            user: header_of("x-tokend-user"),
            organization: header_of("x-tokend-organization"),
            token_id: header_of("x-tokend-token-id"),
        },
        401 | 403 => {
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            let verdict = body["verdict"].as_str().unwrap().to_owned();
            let forbidden = matches!(&*verdict, "missing_scope" | "ip_not_allowed");
            assert_eq!(reply.status == 403, forbidden, "{reply:?}");
            Decision::Denied(verdict)
        }
        503 => Decision::Unknown,
        _ => panic!("{reply:?}"),
    }
}
