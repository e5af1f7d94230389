//! Envoy in front of a backend, as the guide configures it: by gRPC, by HTTP, with raw headers and with bodies.

use std::path::Path;

use super::gateways::{Addresses, backend, guarded, request, shown_if_it_fails, started};
use super::inputs;
use super::program::{Running, TestDir, find, find_tool, free_address};
use crate::support::client::created;
use crate::support::replica::Installation;

#[tokio::test]
async fn envoy_guards_a_backend() {
    let Some(program) = find("envoy") else { return };
    guarded(|addresses| start_envoy(&program, &addresses.fill("envoy.yaml"))).await;
}

#[tokio::test]
async fn an_older_envoy_guards_a_backend() {
    let Some(program) = find_tool("../older/envoy/_bin/envoy") else { return };
    guarded(|addresses| start_envoy(&program, &addresses.fill("envoy.yaml"))).await;
}

#[tokio::test]
async fn envoy_guards_a_backend_by_raw_headers() {
    let Some(program) = find("envoy") else { return };
    guarded(|addresses| {
        let filter = "failure_mode_allow: false\n";
        let raw = format!("{filter}                      encode_raw_headers: true\n");
        start_envoy(&program, &addresses.fill("envoy.yaml").replace(filter, &raw))
    })
    .await;
}

#[tokio::test]
async fn envoy_guards_a_backend_by_http() {
    let Some(program) = find("envoy") else { return };
    guarded(|addresses| {
        let text = addresses.fill("envoy.yaml");
        let (before, behind) = text.split_once("                      grpc_service:\n").unwrap();
        let (_, behind) = behind.split_once("timeout: 5s\n").unwrap();
        let (behind, cluster) = behind.split_once("      typed_extension_protocol_options:\n").unwrap();
        let (_, cluster) = cluster.split_once("http2_protocol_options: {} }\n").unwrap();
        let ports =
            [addresses.grpc, addresses.http].map(|address| format!("port_value: {} ", address.port()));
        let cluster = cluster.replace(&ports[0], &ports[1]);
        let http = addresses.fill("envoy-http.yaml");
        let route = "                        - match: { prefix: / }\n";
        let bare = format!("{route}                          request_headers_to_remove: [authorization]\n");
        start_envoy(&program, &format!("{before}{http}\n{behind}{cluster}").replace(route, &bare))
    })
    .await;
}

#[tokio::test]
async fn a_request_body_sent_by_envoy_causes_no_outage() {
    let Some(program) = find("envoy") else { return };
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.integrations.ext_authz = true;
    let replica = installation.serve(config).await;
    let addresses = Addresses {
        gateway: free_address(),
        backend: backend().await,
        http: replica.http,
        grpc: replica.address,
        scoped: true,
    };
    let start = |addresses: &Addresses| {
        let filter = "failure_mode_allow: false\n";
        let bodies =
            format!("{filter}                      with_request_body: {{ max_request_bytes: 1000000 }}\n");
        start_envoy(&program, &addresses.fill("envoy.yaml").replace(filter, &bodies))
    };
    let gateway = started(&start, &addresses).await;
    let _said = shown_if_it_fails(&gateway);
    let bearer = format!("Bearer {}", created(&mut replica.root(), request("ada")).await.secret);
    let headers = [("authorization", bearer.as_bytes()), ("connection", b"close")];

    for (length, expected) in [(1000, 200), (100_000, 200), (200_000, 413), (900_000, 413)] {
        let (status, body) = inputs::ask(addresses.gateway, "POST", &headers, &vec![b'x'; length]).await;
        assert_eq!(status, expected, "{length}: {body}");
    }
    let (status, body) = inputs::ask(addresses.gateway, "POST", &headers[1..], &vec![b'x'; 200_000]).await;
    assert_eq!((status, &*body), (413, r#"{"error":"invalid_request"}"#));
}

fn start_envoy(program: &Path, text: &str) -> Running {
    let test_dir = TestDir::new();
    let file = test_dir.write("envoy.yaml", text);
    let arguments = ["-c", &file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"];
    test_dir.start(program, &arguments)
}
