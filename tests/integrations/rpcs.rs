//! The RPCs that verify, in all forms in which the server answers them.

use tokend::api::proto::{Consistency, VerifyRequest, VerifyResponse, VerifyStreamRequest};
use tonic::{Code, Request, Response};

use super::asking::{Case, Decision, Fixture};

impl Fixture {
    /// Sends a case as Verify.
    pub(crate) async fn verify(&self, case: &Case) -> Decision {
        self.verify_as(Request::new(case.request())).await
    }

    async fn verify_as(&self, request: Request<VerifyRequest>) -> Decision {
        let answer = self.verifier.clone().verify(request).await;
        decision_of_verify(answer.map(Response::into_inner).map_err(|status| status.code()))
    }

    /// Sends a case as Verify, with a header that excludes the fast path.
    pub(crate) async fn routed(&self, case: &Case) -> Decision {
        let mut request = Request::new(case.request());
        request.metadata_mut().insert("grpc-encoding", "identity".parse().unwrap());
        self.verify_as(request).await
    }

    pub(crate) async fn full(&self, case: &Case) -> Decision {
        let request = VerifyRequest { consistency: Consistency::Full.into(), ..case.request() };
        self.verify_as(Request::new(request)).await
    }

    pub(crate) async fn stream(&self, case: &Case) -> Decision {
        let asked = tokio_stream::once(VerifyStreamRequest { request: Some(case.request()) });
        let mut verifier = self.verifier.clone();
        let answer = async {
            let mut answers = verifier.verify_stream(asked).await?.into_inner();
            answers.message().await
        };
        let answer = answer.await.map_err(|status| status.code());
        decision_of_verify(answer.map(|answer| answer.expect("an answer").response.unwrap()))
    }
}

/// Reads Verify's response.
pub(crate) fn decision_of_verify(answer: Result<VerifyResponse, Code>) -> Decision {
    let reply = match answer {
        Err(Code::Unavailable) => return Decision::Unknown,
        answer => answer.unwrap(),
    };
    let verdict = reply.verdict().as_str_name().trim_start_matches("VERDICT_").to_lowercase();
    match reply.token {
        Some(token) if verdict == "valid" => Decision::Admitted {
            user: token.user_id,
            organization: token.organization_id,
            token_id: token.id,
        },
        _ => Decision::Denied(verdict),
    }
}
