//! Clients as a backend would write them, and the requests that most tests start with.

use prost_types::{FieldMask, Timestamp};
use secrecy::ExposeSecret as _;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::token_service_client::TokenServiceClient;
use tokend::api::proto::{
    CreateTokenRequest, CreateTokenResponse, OwnerKind, RevokeTokenRequest, RevokeTokenResponse,
    RevokeUserTokensRequest, RotateTokenRequest, RotateTokenResponse, UpdateTokenRequest, VerifyRequest,
    VerifyResponse,
};
use tokend::clock;
use tokend::secret::{Prefix, Secret, TokenId};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A client of the service.
pub(crate) type Client = TokenServiceClient<InterceptedService<Channel, Authorization>>;

/// Adds its values, none, one or several, to every call's `authorization` metadata.
#[derive(Debug, Clone)]
pub(crate) struct Authorization(Vec<MetadataValue<Ascii>>);

impl Authorization {
    /// Takes the values to be sent.
    pub(crate) fn new(values: &[&str]) -> Self {
        Self(values.iter().map(|value| value.parse().unwrap()).collect())
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for value in &self.0 {
            request.metadata_mut().append("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Returns a client that sends these `authorization` values.
pub(crate) fn bearing(channel: Channel, values: &[&str]) -> Client {
    TokenServiceClient::with_interceptor(channel, Authorization::new(values))
}

/// Returns a request that is valid, for an ordinary token that never expires.
pub(crate) fn ordinary() -> CreateTokenRequest {
    CreateTokenRequest {
        user_id: "ada".to_owned(),
        name: "laptop".to_owned(),
        expiration: Some(Expiration::NoExpiration(true)),
        ..Default::default()
    }
}

/// Requests a token of this owner in acme.
pub(crate) fn of_owner(user_id: &str, kind: OwnerKind, scopes: &[&str]) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: user_id.to_owned(),
        owner_kind: kind.into(),
        scopes: texts(scopes),
        ..ordinary()
    }
}

/// Returns copies of these texts, as messages need them.
pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Returns a whole second after 1970.
pub(crate) fn second(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// Returns a time as one number, for comparisons.
pub(crate) fn nanos(time: Option<&Timestamp>) -> i128 {
    let time = time.expect("a time");
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

/// Creates a token, which must succeed.
pub(crate) async fn created(client: &mut Client, request: CreateTokenRequest) -> CreateTokenResponse {
    client.create_token(request).await.unwrap().into_inner()
}

/// Creates an ordinary or privileged token in an organization, which must succeed.
pub(crate) async fn created_with(
    client: &mut Client,
    organization_id: &str,
    scopes: &[&str],
) -> CreateTokenResponse {
    let request = CreateTokenRequest {
        organization_id: organization_id.to_owned(),
        scopes: texts(scopes),
        ..ordinary()
    };
    created(client, request).await
}

/// Returns the request that revokes a token.
pub(crate) fn revocation(id: &str, reason: &str) -> RevokeTokenRequest {
    RevokeTokenRequest {
        target: Some(Target::TokenId(id.to_owned())),
        reason: reason.to_owned(),
        ..Default::default()
    }
}

/// Revokes a token, which must succeed.
pub(crate) async fn revoked(client: &mut Client, id: &str, reason: &str) -> RevokeTokenResponse {
    client.revoke_token(revocation(id, reason)).await.unwrap().into_inner()
}

/// Returns the request that rotates a token without a grace.
pub(crate) fn rotation(id: &str) -> RotateTokenRequest {
    RotateTokenRequest { token_id: id.to_owned(), ..Default::default() }
}

/// Rotates a token, which must succeed.
pub(crate) async fn rotated(client: &mut Client, request: RotateTokenRequest) -> RotateTokenResponse {
    client.rotate_token(request).await.unwrap().into_inner()
}

/// Returns the request that revokes all tokens of a user.
pub(crate) fn leaver(user_id: &str) -> RevokeUserTokensRequest {
    RevokeUserTokensRequest { user_id: user_id.to_owned(), ..Default::default() }
}

/// Returns a request id that was never used.
pub(crate) fn new_request_id() -> String {
    clock::random_uuid().to_string()
}

/// Returns the request that gives a token the name `renamed`.
pub(crate) fn renaming(id: &str) -> UpdateTokenRequest {
    UpdateTokenRequest {
        token_id: id.to_owned(),
        name: "renamed".to_owned(),
        update_mask: mask(&["name"]),
        ..Default::default()
    }
}

/// Returns the mask of these paths.
#[expect(clippy::unnecessary_wraps, reason = "as the message wants it")]
pub(crate) fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: texts(paths) })
}

/// Returns the request for a verdict.
pub(crate) fn question(secret: &str, required_scopes: &[&str]) -> VerifyRequest {
    VerifyRequest { secret: secret.to_owned(), required_scopes: texts(required_scopes), ..Default::default() }
}

/// Asks for a verdict, which must succeed.
pub(crate) async fn verified(client: &mut Client, secret: &str, required_scopes: &[&str]) -> VerifyResponse {
    client.verify(question(secret, required_scopes)).await.unwrap().into_inner()
}

/// Returns a secret that names this token but has other random bits.
pub(crate) fn forged(id: TokenId) -> String {
    let secret = Secret::generate(id, &mut clock::randomness()).unwrap();
    secret.render(&Prefix::default()).expose_secret().to_owned()
}

/// Returns an id that no token has.
pub(crate) fn unknown_id() -> TokenId {
    TokenId::generate(clock::unix_millis(), &mut clock::randomness()).unwrap()
}
