//! The guarded services of examples/, each started as its users would and called over gRPC, against a real tokend:
//! who may is let in, everybody else is refused, and what is not known is neither.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod reports;

use std::path::Path;

use reports::{Reports, guarded};
use support::program::{Place, Running, find, find_at, find_tool};

fn start(program: &Path, arguments: &[&str], reports: &Reports) -> Running {
    let place = Place::new();
    let secret = place.write("secret", &reports.secret);
    let environment = [
        ("TOKEND_ADDRESS", &*reports.tokend),
        ("TOKEND_SECRET_FILE", &secret),
        ("REPORTS_LISTEN", &reports.listen),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    place.start_with(program, arguments, &environment)
}

#[tokio::test]
async fn a_python_service_lets_in_who_may_and_nobody_else() {
    let Some(python) = find_tool("python") else { return };
    if find_at("examples/python/gen").is_none() {
        return;
    }
    let Some(service) = find_at("examples/python/service.py") else { return };
    guarded(|reports| start(&python, &[service.to_str().unwrap()], reports)).await;
}

#[tokio::test]
async fn a_typescript_service_lets_in_who_may_and_nobody_else() {
    let Some(node) = find("node") else { return };
    let Some(service) = find_at("examples/typescript/gen/service.js") else { return };
    guarded(|reports| start(&node, &[service.to_str().unwrap()], reports)).await;
}

#[tokio::test]
async fn a_go_service_lets_in_who_may_and_nobody_else() {
    let Some(service) = find_at("examples/go/gen/reports-service") else { return };
    guarded(|reports| start(&service, &[], reports)).await;
}
