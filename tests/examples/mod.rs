//! The guarded services of examples/, each started as its users do and called over gRPC, against a
//! real tokend: authorized callers are admitted, others are refused, and if nothing is known
//! neither happens.

mod portal;
mod reports;

use std::path::{Path, PathBuf};

use self::reports::{Reports, guarded};
use crate::support::client::{created_with, revoked};
use crate::support::program::{Running, TestDir, find, find_at, find_tool, free_address, or_skipped};
use crate::support::replica::Replica;
use crate::support::{eventually, http};

fn start(program: &Path, arguments: &[&str], reports: &Reports) -> Running {
    let test_dir = TestDir::new();
    let secret = test_dir.write("secret", &reports.secret);
    let environment = [
        ("TOKEND_ADDRESS", &*reports.tokend),
        ("TOKEND_SECRET_FILE", &secret),
        ("REPORTS_LISTEN", &reports.listen),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("GRPC_GO_RETRY", "on"),
    ];
    test_dir.start_with(program, arguments, &environment)
}

#[tokio::test]
async fn a_python_service_admits_only_allowed_callers() {
    let Some(python) = find_tool("python") else { return };
    if find_at("examples/python/gen").is_none() {
        return;
    }
    let Some(service) = find_at("examples/python/service.py") else { return };
    guarded(|reports| start(&python, &[service.to_str().unwrap()], reports)).await;
}

#[tokio::test]
async fn a_typescript_service_admits_only_allowed_callers() {
    let Some(node) = find("node") else { return };
    let Some(service) = find_at("examples/typescript/gen/service.js") else { return };
    guarded(|reports| start(&node, &[service.to_str().unwrap()], reports)).await;
}

/// Finds the Rust example, which is built in the same directory as tokend.
fn rust_service() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_tokend")).with_file_name("reports-service");
    or_skipped("reports-service", Some(built).filter(|program| program.exists()))
}

#[tokio::test]
async fn a_rust_service_admits_only_allowed_callers() {
    let Some(service) = rust_service() else { return };
    guarded(|reports| start(&service, &[], reports)).await;
}

#[tokio::test]
async fn a_rust_http_service_judges_locally_and_learns_of_revocations() {
    let Some(service) = rust_service() else { return };
    let replica = Replica::start().await;
    let mut root = replica.root();
    let test_dir = TestDir::new();
    let own = created_with(&mut root, "acme", &["tokend:verify"]).await.secret;
    let (secret, listen) = (test_dir.write("secret", &own), free_address());
    let mut running = test_dir.start_with(
        &service,
        &[],
        &[
            ("TOKEND_ADDRESS", &format!("http://{}", replica.address)),
            ("TOKEND_SECRET_FILE", &secret),
            ("REPORTS_LISTEN", &listen.to_string()),
            ("REPORTS_STALENESS_MS", "1000"),
        ],
    );
    eventually("the service listens", async || {
        running.check();
        tokio::net::TcpStream::connect(listen).await.ok()
    })
    .await;
    let reader = created_with(&mut root, "acme", &["reports:read"]).await;
    let bearer = format!("Bearer {}", reader.secret);
    let read = async || http::send(listen, "GET", "/reports/7", &[("authorization", &bearer)], "").await;

    for _ in 0..3 {
        let reply = read().await;
        assert_eq!((reply.status, &*reply.body), (200, "report 7 for ada"));
    }
    let nobody = http::send(listen, "GET", "/reports/7", &[], "").await;
    assert_eq!((nobody.status, &*nobody.header("www-authenticate").unwrap()), (401, "Bearer"));
    assert_eq!(http::get(listen, "/health").await, (200, "well".to_owned()));
    revoked(&mut root, &reader.token.unwrap().id, "").await;
    eventually("it is refused", async || (read().await.status == 401).then_some(())).await;
    assert_eq!(read().await.status, 401);
}

#[tokio::test]
async fn a_go_service_admits_only_allowed_callers() {
    let Some(service) = find_at("examples/go/gen/reports-service") else { return };
    guarded(|reports| start(&service, &[], reports)).await;
}
