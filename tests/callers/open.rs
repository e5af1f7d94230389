//! The services without authentication: health and reflection.

use std::collections::BTreeMap;

use tokend::api::health::proto::HealthListRequest;
use tokend::api::health::proto::health_client::HealthClient;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{ServiceUnknown, Serving};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::in_time;
use crate::support::replica::{Replica, SERVICE};

#[tokio::test]
async fn anybody_may_read_health_overall_and_of_the_service() {
    let replica = Replica::shared().await;

    assert_eq!(replica.health("").await, ServingStatus::Serving);
    assert_eq!(replica.health(SERVICE).await, ServingStatus::Serving);
}

#[tokio::test]
async fn health_lists_all_services_and_watches_unknown_ones() {
    let replica = Replica::start().await;
    let mut client = HealthClient::new(replica.channel());

    let listed = client.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    let listed: BTreeMap<_, _> = listed.into_iter().map(|(name, output)| (name, output.status())).collect();
    assert_eq!(
        listed,
        [("", Serving), (SERVICE, Serving)].map(|(name, output)| (name.to_owned(), output)).into()
    );

    let unknown = || HealthCheckRequest { service: "tokend.v1.Elsewhere".to_owned() };
    assert_eq!(client.check(unknown()).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(unknown()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServiceUnknown);
    // The watch continues until the server ends, and ends then.
    replica.shut_down().outcome().await.unwrap();
    assert!(in_time("the watch's end", watch.message()).await.unwrap().is_none());
}

/// Requests the list and several symbols from one version of reflection.
macro_rules! reflect {
    ($version:ident, $replica:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new($replica.channel());
        let mut services = Vec::new();
        for question in [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol("tokend.v1.TokenService.Verify".to_owned()),
            MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned()),
            MessageRequest::FileContainingSymbol("grpc.health.v1.Health".to_owned()),
        ] {
            let shown = format!("{question:?}");
            let request =
                $version::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
            let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
            match answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    services.extend(list.service.into_iter().map(|service| service.name));
                }
                MessageResponse::FileDescriptorResponse(files) => {
                    assert!(!files.file_descriptor_proto.is_empty(), "{shown}");
                }
                other => panic!("{shown}: {other:?}"),
            }
        }
        // An unknown symbol is an error message in the stream, which continues.
        let unknown = [
            MessageRequest::FileContainingSymbol("tokend.v1.Nothing".to_owned()),
            MessageRequest::FileByFilename("nothing.proto".to_owned()),
            MessageRequest::AllExtensionNumbersOfType("tokend.v1.Nothing".to_owned()),
            MessageRequest::FileByFilename("tokend/v1/token_service.proto".to_owned()),
            MessageRequest::AllExtensionNumbersOfType("tokend.v1.Token".to_owned()),
        ]
        .map(|question| $version::ServerReflectionRequest {
            host: "tokend".to_owned(),
            message_request: Some(question),
        });
        let answers = client.server_reflection_info(tokio_stream::iter(unknown.clone())).await;
        let mut answers = answers.unwrap().into_inner();
        let mut codes = Vec::new();
        for question in unknown {
            let answer = answers.message().await.unwrap().unwrap();
            assert_eq!((answer.valid_host, answer.original_request), (question.host.clone(), Some(question)));
            codes.push(match answer.message_response.unwrap() {
                MessageResponse::ErrorResponse(error) => error.error_code,
                _ => 0,
            });
        }
        let not_found = Code::NotFound as i32;
        assert_eq!(codes, [not_found, not_found, not_found, 0, 0]);
        services
    }};
}

#[tokio::test]
async fn reflection_answers_anybody_in_both_versions() {
    let replica = Replica::shared().await;

    let current = reflect!(v1, replica);
    let older = reflect!(v1alpha, replica);

    for services in [current, older] {
        assert!(services.iter().any(|name| name == SERVICE), "{services:?}");
        assert!(services.iter().any(|name| name == "grpc.health.v1.Health"), "{services:?}");
    }
}
