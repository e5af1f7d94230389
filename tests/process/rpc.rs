//! Calls over gRPC, each on a separate connection.

use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::token_service_client::TokenServiceClient;
use tokend::api::proto::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, RevokeTokenRequest, Token, Verdict,
    VerifyRequest, VerifyResponse,
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await
}

/// Returns whether the server's health is SERVING.
pub(crate) fn is_serving(address: &str) -> bool {
    runtime().block_on(async {
        let Ok(channel) = connect(address).await else { return false };
        let checked = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        checked.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
    })
}

/// Creates a token with the scope `orders:read`, for a minute.
pub(crate) fn create(address: &str, caller: &str, user: &str) -> Result<CreateTokenResponse, Status> {
    let message = CreateTokenRequest {
        user_id: user.to_owned(),
        name: "laptop".to_owned(),
        expiration: Some(Expiration::Ttl(prost_types::Duration { seconds: 60, nanos: 0 })),
        scopes: vec!["orders:read".to_owned()],
        ..CreateTokenRequest::default()
    };
    runtime().block_on(async {
        let mut client = TokenServiceClient::new(connect(address).await.unwrap());
        Ok(client.create_token(request(caller, message)).await?.into_inner())
    })
}

pub(crate) fn verify(address: &str, caller: &str, presented: &str) -> Result<VerifyResponse, Status> {
    let message = VerifyRequest {
        secret: presented.to_owned(),
        required_scopes: vec!["orders:read".to_owned()],
        ..Default::default()
    };
    runtime().block_on(async {
        let mut client = TokenServiceClient::new(connect(address).await.unwrap());
        Ok(client.verify(request(caller, message)).await?.into_inner())
    })
}

/// Verifies within the caller's trace.
pub(crate) fn verify_traced(
    address: &str,
    caller: &str,
    presented: &str,
    traceparent: &str,
) -> Result<VerifyResponse, Status> {
    let message = VerifyRequest { secret: presented.to_owned(), ..Default::default() };
    let mut request = request(caller, message);
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    runtime().block_on(async {
        let mut client = TokenServiceClient::new(connect(address).await.unwrap());
        Ok(client.verify(request).await?.into_inner())
    })
}

pub(crate) fn verdict(address: &str, caller: &str, presented: &str) -> Verdict {
    verify(address, caller, presented).unwrap().verdict()
}

/// Revokes a token by its id.
pub(crate) fn revoke(address: &str, caller: &str, id: &str) -> Result<(), Status> {
    let target = Some(Target::TokenId(id.to_owned()));
    let message = RevokeTokenRequest { target, ..RevokeTokenRequest::default() };
    runtime().block_on(async {
        let mut client = TokenServiceClient::new(connect(address).await.unwrap());
        client.revoke_token(request(caller, message)).await.map(drop)
    })
}

pub(crate) fn list(address: &str, caller: &str) -> Result<Vec<Token>, Status> {
    runtime().block_on(async {
        let mut client = TokenServiceClient::new(connect(address).await.unwrap());
        let answer = client.list_tokens(request(caller, ListTokensRequest::default())).await?;
        Ok(answer.into_inner().tokens)
    })
}

fn request<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {caller}").parse().unwrap());
    request
}
