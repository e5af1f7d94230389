//! What needs no caller: health and reflection.

use tonic_health::ServingStatus;
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::replica::{Replica, SERVICE};

#[tokio::test]
async fn health_is_told_to_anybody_overall_and_for_the_service() {
    let replica = Replica::start().await;

    assert_eq!(replica.health("").await, ServingStatus::Serving);
    assert_eq!(replica.health(SERVICE).await, ServingStatus::Serving);
}

/// Asks one reflection protocol what it lists and whether it knows a symbol.
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
        services
    }};
}

#[tokio::test]
async fn reflection_answers_anybody_in_both_versions() {
    let replica = Replica::start().await;

    let current = reflect!(v1, replica);
    let older = reflect!(v1alpha, replica);

    for services in [current, older] {
        assert!(services.iter().any(|name| name == SERVICE), "{services:?}");
        assert!(services.iter().any(|name| name == "grpc.health.v1.Health"), "{services:?}");
    }
}
