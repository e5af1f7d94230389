//! Which reserved scope allows which RPC, and no other.

use tonic::Code;
use tonic_types::StatusExt as _;

use super::methods::{call, methods};
use crate::support::client::created_with;
use crate::support::replica::Replica;
use crate::support::status::{reason, refused};

const RESERVED: [&str; 6] =
    ["tokend:verify", "tokend:verify:any", "tokend:read", "tokend:self", "tokend:write", "tokend:root"];

/// Returns the scopes that allow an RPC; the first is the one in the refusal.
fn opened_by(method: &str) -> &'static [&'static str] {
    match method {
        "Verify" | "VerifyStream" => &["tokend:verify", "tokend:verify:any", "tokend:root"],
        "GetToken" | "GetTokenLimits" | "ListTokens" | "ListTokenEvents" | "GetUsage" => {
            &["tokend:read", "tokend:self", "tokend:root"]
        }
        "ListUsers" | "GetPolicy" | "CheckPolicy" | "GetPlan" | "ListPlans" => {
            &["tokend:read", "tokend:root"]
        }
        "CreateToken" | "UpdateToken" | "RotateToken" | "RevokeToken" | "DisableToken" | "EnableToken" => {
            &["tokend:write", "tokend:self", "tokend:root"]
        }
        "RevokeUserTokens"
        | "DisableUser"
        | "EnableUser"
        | "CreatePortalSession"
        | "RevokePortalSessions"
        | "SetPlan"
        | "DeletePlan"
        | "AddCredits" => &["tokend:write", "tokend:root"],
        "WatchTokens" => &["tokend:verify", "tokend:verify:any", "tokend:read", "tokend:root"],
        "CreateConsoleLink" => &["tokend:read", "tokend:self", "tokend:write", "tokend:root"],
        "UpdatePolicy" | "EnforcePolicy" => &["tokend:root"],
        unknown => panic!("say here which scopes open {unknown}"),
    }
}

#[tokio::test]
async fn each_reserved_scope_allows_only_its_own_rpcs() {
    let replica = Replica::start().await;

    for scope in RESERVED {
        let secret = created_with(&mut replica.root(), "acme", &[scope]).await.secret;
        for method in methods() {
            let outcome = call(&replica, &[&format!("Bearer {secret}")], &method).await;
            let opening = opened_by(&method);
            if opening.contains(&scope) {
                // The empty message may be invalid, but it gets past authorization.
                let reason = outcome.err().as_ref().and_then(reason);
                assert!(
                    reason.is_none() || reason.as_deref() == Some("INVALID_FIELD"),
                    "{scope} {method} {reason:?}"
                );
            } else {
                let status = refused(outcome, Code::PermissionDenied, "SCOPE_MISSING");
                let info = status.get_details_error_info().unwrap();
                assert_eq!(info.metadata["scope"], opening[0], "{scope} {method}");
            }
        }
    }
}
