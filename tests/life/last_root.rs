//! The last active root token: no call ends it by mistake, and no call is refused that forces it or
//! shows the token's secret.

use prost_types::Duration;
use sqlx::Executor as _;
use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::{
    CreateTokenRequest, DisableTokenRequest, DisableUserRequest, EnforcePolicyRequest, ListTokensRequest,
    Policy, RevokeTokenRequest, RevokeUserTokensRequest, RotateTokenRequest, TokenState, UpdatePolicyRequest,
    UpdateTokenRequest, rotate_token_request, update_token_request,
};
use tokend::secret::{Prefix, Secret};
use tonic::{Code, Status};

use super::{got, seconds};
use crate::support::client::{
    Client, created, created_with, leaver, mask, new_request_id, ordinary, revocation, revoked, rotated,
    rotation, texts,
};
use crate::support::contract::rpcs;
use crate::support::replica::{Installation, Replica};
use crate::support::status::{check, refused};
use crate::support::{eventually, in_time};

const HOUR: i64 = 3600;

/// RPCs that change something but end no token, or no `tokend:root` token.
const HARMLESS: [&str; 12] = [
    "CreateToken",
    "EnableToken",
    "EnableUser",
    "UpdatePolicy",
    "EnforcePolicy",
    "CreateConsoleLink",
    "CreatePortalSession",
    "RevokePortalSessions",
    "SetPlan",
    "DeletePlan",
    "AddCredits",
    "ExchangeLoginCode",
];

/// Read-only RPCs.
const READS: [&str; 14] = [
    "GetToken",
    "ListTokens",
    "ListUsers",
    "GetUsage",
    "Verify",
    "VerifyStream",
    "ListTokenEvents",
    "WatchTokens",
    "GetPolicy",
    "CheckPolicy",
    "GetPlan",
    "ListPlans",
    "GetTokenLimits",
    "GetLoginPage",
];

/// Returns the id of the token that bootstrap created, of the user `root`.
fn root_id(replica: &Replica) -> String {
    Secret::parse(&replica.installation.root_secret, &Prefix::default()).unwrap().id().to_string()
}

/// Creates another root token, of the user `ada`, with a lifetime of `hours`; `None`: without expiration.
async fn another(root: &mut Client, hours: Option<i64>) -> (String, String) {
    let ttl = hours.map(|hours| Expiration::Ttl(Duration { seconds: hours * HOUR, nanos: 0 }));
    let request = CreateTokenRequest {
        scopes: texts(&["tokend:root"]),
        expiration: Some(ttl.unwrap_or(Expiration::NoExpiration(true))),
        ..ordinary()
    };
    let made = created(root, request).await;
    (made.token.unwrap().id, made.secret)
}

/// A call that ends a token given its id, or makes it expire soon.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Revoke,
    RevokeAlone,
    RevokeUser,
    Disable,
    DisableUser,
    Expire,
    Demote,
    Rotate,
}

const ENDS: [End; 8] = [
    End::Revoke,
    End::RevokeAlone,
    End::RevokeUser,
    End::Disable,
    End::DisableUser,
    End::Expire,
    End::Demote,
    End::Rotate,
];

impl End {
    /// Ends a token of the user `root`.
    async fn of(self, client: &mut Client, id: &str, force: bool) -> Result<(), Status> {
        let soon = Duration { seconds: HOUR / 2, nanos: 0 };
        match self {
            Self::Revoke | Self::RevokeAlone => {
                let only_this = self == Self::RevokeAlone;
                let request = RevokeTokenRequest { only_this, force, ..revocation(id, "") };
                client.revoke_token(request).await.map(drop)
            }
            Self::RevokeUser => {
                let request = RevokeUserTokensRequest { force, ..leaver("root") };
                client.revoke_user_tokens(request).await.map(drop)
            }
            Self::Disable => {
                let request = DisableTokenRequest { token_id: id.to_owned(), force, ..Default::default() };
                client.disable_token(request).await.map(drop)
            }
            Self::DisableUser => {
                let request = DisableUserRequest { user_id: "root".to_owned(), force, ..Default::default() };
                client.disable_user(request).await.map(drop)
            }
            Self::Expire => {
                let request = UpdateTokenRequest {
                    token_id: id.to_owned(),
                    expiration: Some(update_token_request::Expiration::Ttl(soon)),
                    update_mask: mask(&["expiration"]),
                    force,
                    ..Default::default()
                };
                client.update_token(request).await.map(drop)
            }
            Self::Demote => {
                let request = UpdateTokenRequest {
                    token_id: id.to_owned(),
                    scopes: texts(&["a:b"]),
                    update_mask: mask(&["scopes"]),
                    force,
                    ..Default::default()
                };
                client.update_token(request).await.map(drop)
            }
            Self::Rotate => {
                let expiration = Some(rotate_token_request::Expiration::Ttl(soon));
                let request = RotateTokenRequest { expiration, force, ..rotation(id) };
                client.rotate_token(request).await.map(drop)
            }
        }
    }
}

/// Checks that a call was refused because it would end the last root token, and that the token is
/// unchanged.
async fn kept(outcome: Result<(), Status>, reader: &mut Client, id: &str, case: &str) {
    let Err(status) = outcome else { panic!("{case}: done") };
    check(&status, Code::FailedPrecondition, "LAST_ROOT_TOKEN");
    assert!(status.message().contains("tokend bootstrap"), "{case}: {}", status.message());
    let token = got(reader, id).await;
    assert_eq!((token.state(), token.expire_time), (TokenState::Active, None), "{case}");
    assert_eq!(token.scopes, ["tokend:root"], "{case}");
}

#[tokio::test]
async fn no_call_ends_the_last_active_root_token_without_force() {
    for end in ENDS {
        let replica = Replica::start().await;
        let (mut root, id) = (replica.root(), root_id(&replica));
        // A token that rotates itself cannot choose the expiration of its successor.
        if end != End::Rotate {
            let outcome = end.of(&mut root.clone(), &id, false).await;
            kept(outcome, &mut root, &id, &format!("{end:?} by itself")).await;
        }
        // A root token that expires soon does not count as another one.
        let (_, secret) = another(&mut root, Some(1)).await;
        let mut mortal = replica.client(&secret);

        let outcome = end.of(&mut mortal, &id, false).await;
        kept(outcome, &mut root, &id, &format!("{end:?} by one that ends soon")).await;

        end.of(&mut mortal, &id, true).await.unwrap_or_else(|status| panic!("{end:?}, forced: {status}"));
        let token = got(&mut mortal, &id).await;
        let same = (token.state(), token.expire_time, &*token.scopes);
        assert_ne!(same, (TokenState::Active, None, &texts(&["tokend:root"])[..]), "{end:?}, forced");
    }
}

#[tokio::test]
async fn any_call_may_end_a_root_token_if_another_is_active() {
    for end in ENDS {
        let replica = Replica::start().await;
        let (_, secret) = another(&mut replica.root(), None).await;
        let mut other = replica.client(&secret);

        let outcome = end.of(&mut other, &root_id(&replica), false).await;

        outcome.unwrap_or_else(|status| panic!("{end:?}: {status}"));
    }
}

#[tokio::test]
async fn an_inactive_root_token_does_not_count_as_another() {
    for column in [
        "revoke_time = now(), revoke_reason = ''",
        "disable_time = now()",
        "user_disable_time = now()",
        "expire_time = now()",
    ] {
        let replica = Replica::start().await;
        let (mut root, id) = (replica.root(), root_id(&replica));
        another(&mut root, None).await;
        let change = format!("UPDATE tokens SET {column} WHERE user_id = 'ada'");
        assert_eq!(replica.installation.database.execute(&*change).await, 1);

        let outcome = End::Revoke.of(&mut root.clone(), &id, false).await;

        kept(outcome, &mut root, &id, column).await;
    }
}

#[tokio::test]
async fn of_a_rotated_root_token_only_its_successor_counts() {
    let replica = Replica::start().await;
    let (mut root, old) = (replica.root(), root_id(&replica));
    let (_, secret) = another(&mut root, Some(1)).await;
    let mut mortal = replica.client(&secret);
    let graced = RotateTokenRequest {
        grace_period: seconds(20 * 24 * HOUR),
        request_id: new_request_id(),
        ..rotation(&old)
    };
    let new = rotated(&mut root, graced).await.token.unwrap().id;

    // The revocation would include the successor.
    kept(End::Revoke.of(&mut mortal, &old, false).await, &mut root, &new, "with its line").await;
    kept(End::Revoke.of(&mut mortal, &new, false).await, &mut root, &new, "the successor").await;
    End::RevokeAlone.of(&mut mortal, &old, false).await.unwrap();
    kept(End::Disable.of(&mut mortal, &new, false).await, &mut mortal, &new, "the only one").await;
}

#[tokio::test]
async fn the_last_root_token_can_be_revoked_by_its_secret() {
    for by_itself in [true, false] {
        let replica = Replica::start().await;
        let mut root = replica.root();
        let finder = created_with(&mut root, "", &[]).await.secret;
        let mut finder = if by_itself { root.clone() } else { replica.client(&finder) };
        let target = Some(Target::Secret(replica.installation.root_secret.clone()));
        let request = RevokeTokenRequest { target, ..Default::default() };

        let token = finder.revoke_token(request).await.unwrap().into_inner().token.unwrap();

        assert_eq!(token.state(), TokenState::Revoked);
        let listed = root.list_tokens(ListTokensRequest::default()).await;
        refused(listed, Code::Unauthenticated, "CREDENTIAL_REVOKED");
        // And another one can be created.
        Installation::on(replica.installation.database.clone()).await;
    }
}

#[tokio::test]
async fn one_of_two_calls_that_end_the_last_two_root_tokens_is_refused() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut first = replica.root();
    let (other_id, secret) = another(&mut first, None).await;
    let (mut second, id) = (replica.client(&secret), root_id(&replica));
    // Blocks the calls that have already counted and are about to write.
    let mut psql = database.connect().await;
    psql.execute("BEGIN; LOCK TABLE token_events IN EXCLUSIVE MODE").await.unwrap();
    let calls = [
        tokio::spawn(async move { End::Revoke.of(&mut first, &id, false).await }),
        tokio::spawn(async move { End::Disable.of(&mut second, &other_id, false).await }),
    ];
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND (query LIKE '%INSERT INTO token_events%' OR query LIKE 'SELECT pg_advisory%')";
    eventually("both calls wait", async || (database.count(waiting).await == 2).then_some(())).await;

    psql.execute("COMMIT").await.unwrap();

    let mut refusals = Vec::new();
    for call in calls {
        refusals.extend(in_time("the call", call).await.unwrap().err());
    }
    assert_eq!(refusals.len(), 1);
    check(&refusals[0], Code::FailedPrecondition, "LAST_ROOT_TOKEN");
    let active = "SELECT count(*) FROM tokens WHERE revoke_time IS NULL AND disable_time IS NULL";
    assert_eq!(database.count(active).await, 1);
}

#[tokio::test]
async fn every_ending_call_can_be_forced_and_policies_end_no_root_token() {
    let mut names: Vec<String> = Vec::new();
    for rpc in rpcs() {
        let forcible = rpc.fields.iter().any(|field| field.name == "force");
        let known = HARMLESS.contains(&&*rpc.name) || READS.contains(&&*rpc.name);
        assert_ne!(
            forcible, known,
            "{}: has it no force, or is it unknown here whether it ends tokens?",
            rpc.name
        );
        names.push(rpc.name);
    }
    assert!(HARMLESS.iter().chain(&READS).all(|name| names.iter().any(|known| known == name)));

    let replica = Replica::start().await;
    let mut root = replica.root();
    let policy = Policy {
        longest_lifetime: seconds(1),
        most_active_tokens_per_user: 1,
        allowed_scopes: texts(&["a:b"]),
        ..Default::default()
    };
    let request = UpdatePolicyRequest { policy: Some(policy), ..Default::default() };
    root.update_policy(request).await.unwrap();
    root.enforce_policy(EnforcePolicyRequest::default()).await.unwrap();
    assert_eq!(got(&mut root, &root_id(&replica)).await.state(), TokenState::Active);
}

#[tokio::test]
async fn a_caller_without_root_does_not_learn_whether_a_root_token_is_the_last() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let mut writer = replica.caller("", &["tokend:write"]).await;
    for end in ENDS {
        let Err(status) = end.of(&mut writer, &root_id(&replica), false).await else {
            panic!("{end:?}: done")
        };
        check(&status, Code::PermissionDenied, "PRIVILEGED_TOKEN");
    }
    // Nor are callers blocked that end other tokens.
    let other = created_with(&mut root, "", &[]).await.token.unwrap().id;
    revoked(&mut writer, &other, "").await;
}
