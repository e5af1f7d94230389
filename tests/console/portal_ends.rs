//! The end of a portal session: with the token that vouches, with its user, and by a call; on every replica, and in the
//! middle of an act.

use sqlx::Executor as _;
use tokend::api::proto::{
    DisableTokenRequest, DisableUserRequest, EnableTokenRequest, EnableUserRequest, Grant,
    RevokePortalSessionsRequest, UpdateTokenRequest,
};

use super::portal::{backend, by_link, opened, portal_link, send_link, session_for};
use super::{Person, tokens_of};
use crate::support::client::{Client, mask, revoked, texts};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};
use crate::support::status::refused;

/// What ends a portal session of ada.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Revoked,
    Disabled,
    Expired,
    WithoutScope,
    UserRemoved,
    ScopeRemoved,
    UserDisabled,
    Call,
}

const ENDS: [End; 8] = [
    End::Revoked,
    End::Disabled,
    End::Expired,
    End::WithoutScope,
    End::UserRemoved,
    End::ScopeRemoved,
    End::UserDisabled,
    End::Call,
];

fn of_ada() -> Grant {
    Grant { scopes: texts(&["reports:*"]), users: texts(&["ada"]), ..Grant::default() }
}

impl End {
    /// Does it, and returns when it has to hold.
    async fn bring(self, root: &mut Client, id: &str) -> i64 {
        let token_id = id.to_owned();
        let update = |scopes: &[&str], grant: Option<Grant>, paths: &[&str]| UpdateTokenRequest {
            token_id: id.to_owned(),
            scopes: texts(scopes),
            grant,
            update_mask: mask(paths),
            ..Default::default()
        };
        let user = ("acme".to_owned(), "ada".to_owned());
        let change = match self {
            Self::Revoked => {
                return revoked(root, id, "").await.effective_time.unwrap().seconds;
            }
            Self::Disabled => {
                let request = DisableTokenRequest { token_id, ..Default::default() };
                return root
                    .disable_token(request)
                    .await
                    .unwrap()
                    .into_inner()
                    .effective_time
                    .unwrap()
                    .seconds;
            }
            Self::UserDisabled => {
                let request =
                    DisableUserRequest { organization_id: user.0, user_id: user.1, ..Default::default() };
                root.disable_user(request).await.unwrap();
                return 0;
            }
            Self::Call => {
                let request = RevokePortalSessionsRequest { organization_id: user.0, user_id: user.1 };
                let ended = root.revoke_portal_sessions(request).await.unwrap().into_inner();
                assert!(ended.revoked_count > 0);
                return 0;
            }
            Self::Expired => {
                let soon = tokend::api::proto::update_token_request::Expiration::Ttl(prost_types::Duration {
                    seconds: 0,
                    nanos: 1_000_000,
                });
                UpdateTokenRequest { expiration: Some(soon), ..update(&[], None, &["expiration"]) }
            }
            Self::WithoutScope => update(&["tokend:self"], None, &["scopes", "grant"]),
            Self::UserRemoved => update(&[], Some(Grant { users: texts(&["bob"]), ..of_ada() }), &["grant"]),
            Self::ScopeRemoved => {
                update(&[], Some(Grant { scopes: texts(&["orders:*"]), ..of_ada() }), &["grant"])
            }
        };
        root.update_token(change).await.unwrap();
        0
    }
}

/// Waits until a session is refused, which another replica does within the promise.
async fn ended(person: &Person) {
    eventually("the session ends", async || (person.get("/tokens").await.status == 401).then_some(())).await;
}

#[tokio::test]
async fn whatever_ends_what_vouches_ends_the_session_its_open_form_and_its_links_on_every_replica() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let mut root = one.root();
    for end in ENDS {
        let made = backend(&one, "acme", Some(of_ada())).await;
        let id = made.token.unwrap().id;
        let mut backend = one.client(&made.secret);
        let late = portal_link(&mut backend, "ada", &["reports:read"]).await;
        let ada = opened(&one, &mut backend, "ada", &["reports:read"]).await;
        let there = ada.at(&two);
        let (nonce, other) = (ada.new_form().await, there.new_form().await);

        end.bring(&mut root, &id).await;

        // At the replica that did it, from the answer on.
        let fields = [("expiration", "7d"), ("scopes", "reports:read")];
        let reply = ada.generate(&nonce, "made in a session that is over", &fields).await;
        assert_ne!(reply.status, 303, "{end:?}: {}", reply.body);
        assert!(!reply.body.contains("name=\"secret\""), "{end:?}: {}", reply.body);
        let reply = there.generate(&other, "made in a session that is over", &fields).await;
        assert_ne!(reply.status, 303, "{end:?}: {}", reply.body);
        ended(&there).await;
        ended(&ada).await;
        for path in ["/portal", "/portal/open"] {
            let reply = send_link(one.console, path, &late).await;
            assert_eq!((reply.status, reply.header("set-cookie")), (401, None), "{end:?} {path}");
        }
        let sessions = "SELECT count(*) FROM console_sessions WHERE portal_user_id = 'ada'";
        assert_eq!(installation.database.count(sessions).await, 0, "{end:?}");
        // What was over stays so.
        if end == End::UserDisabled {
            refused(
                backend.create_portal_session(session_for("ada", &[])).await,
                tonic::Code::FailedPrecondition,
                "USER_DISABLED",
            );
            let request = EnableUserRequest {
                organization_id: "acme".to_owned(),
                user_id: "ada".to_owned(),
                ..Default::default()
            };
            root.enable_user(request).await.unwrap();
        }
        if end == End::Disabled {
            root.enable_token(EnableTokenRequest { token_id: id }).await.unwrap();
        }
        assert_eq!(ada.get("/tokens").await.status, 401, "{end:?}");
    }
    let own = tokens_of(&one, "ada").await;
    assert!(own.is_empty(), "{own:?}");
}

#[tokio::test]
async fn the_call_ends_the_sessions_of_its_user_alone() {
    let replica = Replica::start().await;
    let mut backend = replica.client(&backend(&replica, "acme", None).await.secret);
    let elsewhere = super::portal::backend(&replica, "other", None).await.secret;
    let ada = opened(&replica, &mut backend, "ada", &[]).await;
    let bob = opened(&replica, &mut backend, "bob", &[]).await;
    let other = opened(&replica, &mut replica.client(&elsewhere), "ada", &[]).await;
    portal_link(&mut backend, "ada", &[]).await;
    let of_ada = RevokePortalSessionsRequest { user_id: "ada".to_owned(), ..Default::default() };

    let ended = backend.revoke_portal_sessions(of_ada.clone()).await.unwrap().into_inner();

    // The session, its link that was used, and the unused one.
    assert_eq!(ended.revoked_count, 2);
    assert_eq!(ada.get("/tokens").await.status, 401);
    for person in [&bob, &other] {
        assert_eq!(person.get("/tokens").await.status, 200);
    }
    assert_eq!(backend.revoke_portal_sessions(of_ada).await.unwrap().into_inner().revoked_count, 0);
    let again = portal_link(&mut backend, "ada", &[]).await;
    by_link(&replica, &again).await;
}

/// Has a form of ada's wait for the transaction that this statement begins, then commits that.
async fn overtaken(replica: &Replica, change: &str) -> (u16, String) {
    let database = &replica.installation.database;
    let mut backend = replica.client(&backend(replica, "acme", Some(of_ada())).await.secret);
    let ada = opened(replica, &mut backend, "ada", &["reports:*"]).await;
    let nonce = ada.new_form().await;
    let mut holder = database.connect().await;
    holder.execute(sqlx::AssertSqlSafe(format!("BEGIN; {change}"))).await.unwrap();
    let sending = tokio::spawn(async move {
        let fields = [("expiration", "7d"), ("scopes", "reports:read")];
        let reply = ada.generate(&nonce, "overtaken", &fields).await;
        (reply.status, reply.body)
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock'";
    eventually("the form waits", async || (database.count(waiting).await > 0).then_some(())).await;
    holder.execute("COMMIT").await.unwrap();
    sending.await.unwrap()
}

#[tokio::test]
async fn an_act_that_waits_while_its_session_ends_is_not_done() {
    let replica = Replica::start().await;
    for change in [
        "DELETE FROM console_sessions WHERE portal_user_id = 'ada'",
        "UPDATE console_sessions SET id = gen_random_uuid() WHERE portal_user_id = 'ada'",
        "UPDATE tokens SET scopes = '{tokend:self}' WHERE user_id = 'backend'",
        "UPDATE tokens SET expire_time = clock_timestamp() WHERE user_id = 'backend'",
        "UPDATE tokens SET disable_time = clock_timestamp() WHERE user_id = 'backend'",
        "UPDATE tokens SET \"grant\" = '{\"users\": [\"bob\"]}' WHERE user_id = 'backend'",
        "UPDATE tokens SET \"grant\" = '{\"users\": [\"ada\"], \"scopes\": [\"orders:*\"]}' WHERE user_id = 'backend'",
    ] {
        let (status, page) = overtaken(&replica, change).await;
        assert_eq!(status, 401, "{change}: {page}");
        assert!(page.contains("Your session is over"), "{change}: {page}");
    }
    assert!(tokens_of(&replica, "ada").await.is_empty());
}
