//! Disabling and enabling a user while something else happens to the same user, to its tokens or to the caller.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokend::api::proto::{
    CreateTokenRequest, DisableUserRequest, EnableUserRequest, Grant, ListTokenEventsRequest, OwnerKind,
    RotateTokenRequest, TokenEventKind, Verdict,
};
use tokend::secret::TokenId;
use tonic::{Code, Status};

use super::{a_statement_waits, seconds, verdict};
use crate::support::client::{Client, created, new_request_id, ordinary, rotation, texts};
use crate::support::in_time;
use crate::support::replica::Replica;
use crate::support::status::{check, refused};

fn disabling(user_id: &str) -> DisableUserRequest {
    DisableUserRequest { user_id: user_id.to_owned(), ..Default::default() }
}

fn enabling(user_id: &str) -> EnableUserRequest {
    EnableUserRequest { user_id: user_id.to_owned(), ..Default::default() }
}

/// Returns the form of a token's id in SQL.
fn uuid(id: &str) -> uuid::Uuid {
    uuid::Uuid::from_bytes(TokenId::parse(id).unwrap().to_bytes())
}

#[tokio::test]
async fn a_token_without_the_mark_of_its_disabled_user_cannot_be_rotated() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    let id = made.token.unwrap().id;
    root.disable_user(disabling("ada")).await.unwrap();
    // As a build leaves it that does not know of disabled users, and still runs beside this one.
    let unmark = format!("UPDATE tokens SET user_disable_time = NULL WHERE id = '{}'", uuid(&id));
    assert_eq!(replica.installation.database.execute(unmark).await, 1);

    refused(root.rotate_token(rotation(&id)).await, Code::FailedPrecondition, "USER_DISABLED");
    let mut own = replica.client(&made.secret);
    let itself =
        RotateTokenRequest { grace_period: seconds(60), request_id: new_request_id(), ..rotation(&id) };
    refused(own.rotate_token(itself).await, Code::FailedPrecondition, "USER_DISABLED");
}

#[tokio::test]
async fn of_two_enablings_at_once_the_second_one_finds_nothing_to_do() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    root.disable_user(disabling("nobody")).await.unwrap();
    // Blocks the first one after it has read that the user is disabled.
    let mut psql = database.connect().await;
    let mut held = psql.begin().await.unwrap();
    held.execute("SELECT FROM disabled_users FOR UPDATE").await.unwrap();
    let (mut first, mut second) = (root.clone(), root.clone());
    let first = tokio::spawn(async move { first.enable_user(enabling("nobody")).await });
    a_statement_waits(database, "transactionid", "DELETE FROM disabled_users").await;
    let second = tokio::spawn(async move { second.enable_user(enabling("nobody")).await });
    a_statement_waits(database, "advisory", "SELECT pg_advisory_xact_lock(").await;

    held.rollback().await.unwrap();

    for enabled in [first, second] {
        in_time("an enabling", enabled).await.unwrap().unwrap();
    }
    let kinds = vec![TokenEventKind::UserEnabled.into()];
    let request = ListTokenEventsRequest { kinds, ..Default::default() };
    assert_eq!(root.list_token_events(request).await.unwrap().into_inner().events.len(), 1);
}

/// Disables or enables Ada.
async fn switch(client: &mut Client, enables: bool) -> Result<(), Status> {
    if enables {
        client.enable_user(enabling("ada")).await.map(drop)
    } else {
        client.disable_user(disabling("ada")).await.map(drop)
    }
}

#[tokio::test]
async fn the_caller_is_judged_as_its_row_is_in_the_transaction() {
    let replica = Replica::start().await;
    let database = &replica.installation.database;
    let mut root = replica.root();
    let in_acme = |user: &str, scopes: &[&str], grant| CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: user.to_owned(),
        scopes: texts(scopes),
        grant,
        ..ordinary()
    };
    let ada = created(&mut root, in_acme("ada", &[], None)).await;
    for (enables, change, reason) in [
        (false, r#""grant" = '{"users": ["bob"]}'"#, "GRANT_EXCEEDED"),
        (false, "scopes = '{tokend:read}', \"grant\" = NULL", "SCOPE_MISSING"),
        (true, r#""grant" = '{"users": ["bob"]}'"#, "GRANT_EXCEEDED"),
        (true, "scopes = '{tokend:read}', \"grant\" = NULL", "SCOPE_MISSING"),
    ] {
        let grant = Some(Grant { users: texts(&["ada"]), ..Grant::default() });
        let made = created(&mut root, in_acme("lead", &["tokend:write"], grant)).await;
        let (mut lead, row) = (replica.client(&made.secret), uuid(&made.token.unwrap().id));
        let before = if enables {
            let of_acme = DisableUserRequest { organization_id: "acme".to_owned(), ..disabling("ada") };
            root.disable_user(of_acme).await.unwrap();
            Verdict::Disabled
        } else {
            Verdict::Valid
        };
        let mut holder = database.connect().await;
        let lock = format!("BEGIN; SELECT FROM tokens WHERE id = '{row}' FOR UPDATE");
        holder.execute(AssertSqlSafe(lock)).await.unwrap();

        let switching = tokio::spawn(async move { switch(&mut lead, enables).await });
        a_statement_waits(database, "transactionid", "SELECT").await;
        let narrow = format!("UPDATE tokens SET {change} WHERE id = '{row}'; COMMIT");
        holder.execute(AssertSqlSafe(narrow)).await.unwrap();

        let status = in_time("the call", switching).await.unwrap().expect_err(reason);
        check(&status, Code::PermissionDenied, reason);
        assert_eq!(verdict(&mut root, &ada.secret).await, before, "{enables} {reason}");
    }
}

#[tokio::test]
async fn root_tokens_of_a_service_account_count_apart_from_those_of_the_person_of_its_id() {
    let replica = Replica::start().await;
    let service = CreateTokenRequest {
        user_id: "root".to_owned(),
        owner_kind: OwnerKind::Service.into(),
        scopes: texts(&["tokend:root"]),
        ..ordinary()
    };
    let made = created(&mut replica.root(), service).await;
    let mut service = replica.client(&made.secret);

    service.disable_user(disabling("root")).await.unwrap();

    let own = DisableUserRequest { owner_kind: OwnerKind::Service.into(), ..disabling("root") };
    refused(service.disable_user(own).await, Code::FailedPrecondition, "LAST_ROOT_TOKEN");
    assert_eq!(verdict(&mut service.clone(), &made.secret).await, Verdict::Valid);
}
