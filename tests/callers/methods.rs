//! The RPCs of the service from its own descriptors, so that the checks include new ones, and a
//! call to any of them without its message types.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokend::api::proto::FILE_DESCRIPTOR_SET;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::support::client::Authorization;
use crate::support::replica::{Replica, SERVICE};

/// Returns the name of every RPC of the service.
pub(crate) fn methods() -> Vec<String> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
    let services = files.iter().filter(|file| file.package() == "tokend.v1").flat_map(|file| &file.service);
    let methods: Vec<_> = services
        // Its calls need no caller: `console::logins` has them.
        .filter(|service| service.name() != "LoginService")
        .inspect(|service| {
            assert_eq!(format!("tokend.v1.{}", service.name()), SERVICE, "a service of its own");
        })
        .flat_map(|service| &service.method)
        .map(|method| method.name().to_owned())
        .collect();
    assert!(methods.len() >= 4, "{methods:?}");
    methods
}

/// Calls an RPC of any kind with an empty message and these `authorization` values.
pub(crate) fn call(
    replica: &Replica,
    values: &[&str],
    method: &str,
) -> impl Future<Output = Result<Response<()>, Status>> + Send + use<> {
    let channel = InterceptedService::new(replica.channel(), Authorization::new(values));
    let path = PathAndQuery::try_from(format!("/{SERVICE}/{method}")).unwrap();
    async move {
        let mut client = Grpc::new(channel);
        client.ready().await.unwrap();
        let one_message = Request::new(tokio_stream::once(()));
        let mut answers =
            client.streaming(one_message, path, ProstCodec::<(), ()>::default()).await?.into_inner();
        answers.message().await.map(|_| Response::new(()))
    }
}
