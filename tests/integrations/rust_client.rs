//! The same case, sent by the Rust client: by each of its verifiers, and by a guard in front of
//! a service.

use std::net::SocketAddr;

use axum::routing::get;
use axum::{Extension, Router};
use tokend_client::{
    Connection, Error, ErrorKind, Guard, LocalConfig, Scope, Scopes, Verdict, Verification, VerifiedToken,
    Verifier,
};
use tokio::net::TcpListener;

use super::asking::{Case, Decision, decision_over_http};
use crate::support::eventually;
use crate::support::http::send;

/// The verifiers of a backend.
pub(crate) struct Verifiers {
    unary: Verifier,
    multiplexed: Verifier,
    local: Verifier,
}

impl Verifiers {
    pub(crate) fn open(address: SocketAddr, secret: &str) -> Self {
        let connection = Connection::to(format!("http://{address}")).secret(secret.into()).attempts(1);
        let client = connection.open().unwrap();
        Self {
            unary: Verifier::unary(client.clone()),
            multiplexed: Verifier::multiplexed(client.clone()).unwrap(),
            local: Verifier::local(client, LocalConfig::default()).unwrap(),
        }
    }

    pub(crate) async fn ask_unary(&self, case: &Case) -> Decision {
        ask(&self.unary, case).await
    }

    pub(crate) async fn ask_multiplexed(&self, case: &Case) -> Decision {
        ask(&self.multiplexed, case).await
    }

    /// Verifies until the token is cached, and returns the cached verdict. A secret that proves no
    /// token is not cached.
    pub(crate) async fn ask_local(&self, case: &Case) -> Decision {
        eventually("an answer from here", async || {
            let asked = ask(&self.local, case).await;
            let scopes = required(case);
            let here = self.local.try_verify(&to_ask(case, &scopes));
            let proves_none = match &asked {
                Decision::Denied(verdict) => matches!(&**verdict, "malformed" | "not_found"),
                decision => *decision == Decision::Unknown,
            };
            here.map(|answer| decision(Ok(answer))).or(proves_none.then_some(asked))
        })
        .await
    }

    /// Calls a service behind a guard, which judges from its cache where it can.
    pub(crate) async fn ask_guard(&self, case: &Case) -> Decision {
        let client = case.client.map(|client| client.parse().unwrap());
        let guard = Guard::new(self.local.clone()).require(case.required.iter().copied()).unwrap();
        let routes = Router::new().route("/", get(who)).layer(guard.client_address(move |_| client));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = tokio::spawn(async move { axum::serve(listener, routes).await });
        let bearer = format!("Bearer {}", case.secret);
        let reply = send(address, "GET", "/", &[("authorization", &bearer)], "").await;
        service.abort();
        decision_over_http(&reply, |name| reply.header(name).unwrap())
    }
}

/// The service's response: the accepted token, in the headers of gateways.
async fn who(Extension(token): Extension<VerifiedToken>) -> [(&'static str, String); 3] {
    [
        ("x-tokend-user", token.user_id.as_str().to_owned()),
        ("x-tokend-organization", token.organization_id.as_str().to_owned()),
        ("x-tokend-token-id", token.id.to_string()),
    ]
}

fn required(case: &Case) -> Scopes {
    Scopes::new(case.required.iter().map(|text| Scope::parse(text).unwrap()).collect()).unwrap()
}

fn to_ask<'a>(case: &'a Case, required_scopes: &'a Scopes) -> tokend_client::VerifyRequest<'a> {
    let client_ip = case.client.map(|client| client.parse().unwrap());
    tokend_client::VerifyRequest::new(&case.secret).required_scopes(required_scopes).client_ip(client_ip)
}

async fn ask(verifier: &Verifier, case: &Case) -> Decision {
    decision(verifier.verify(&to_ask(case, &required(case))).await)
}

fn decision(answer: Result<Verification, Error>) -> Decision {
    let answer = match answer {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) => {
            return Decision::Unknown;
        }
        answer => answer.unwrap(),
    };
    match answer.token {
        Some(token) if answer.verdict == Verdict::Valid => Decision::Admitted {
            user: token.user_id.as_str().to_owned(),
            organization: token.organization_id.as_str().to_owned(),
            token_id: token.id.to_string(),
        },
        _ => Decision::Denied(answer.verdict.word().to_owned()),
    }
}
