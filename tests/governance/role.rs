//! Serving as a role that owns nothing: with exactly the grants of docs/operations.md.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokend::api::proto::{DisableUserRequest, EnableUserRequest, ListTokensRequest, Verdict};

use crate::support::client::{created, ordinary, revoked, verified};
use crate::support::eventually;
use crate::support::replica::Installation;

/// Returns the grants between the markers in the guide.
fn documented_grants() -> String {
    let guide = include_str!("../../docs/operations.md");
    let (_, rest) = guide.split_once("<!-- role:begin -->").expect("the begin of the role's grants");
    let (grants, _) = rest.split_once("<!-- role:end -->").expect("the end of the role's grants");
    grants.trim().trim_start_matches("```sql").trim_end_matches("```").to_owned()
}

#[tokio::test]
async fn the_documented_role_can_serve_and_cannot_touch_the_audit_log() {
    let installation = Installation::new().await;
    let mut owner = installation.database.connect().await;
    // Roles belong to the whole cluster, so this one is for one test only.
    let role = format!("serving_{}", std::process::id());
    let grants = documented_grants().replace("tokend_serve", &role);
    sqlx::raw_sql(sqlx::AssertSqlSafe(grants)).execute(&mut owner).await.unwrap();
    let mut config = installation.config();
    config.database.options = config.database.options.username(&role);
    config.migrate = false;
    let options = config.database.options.clone();

    let replica = installation.serve(config).await;
    let mut root = replica.root();
    let made = created(&mut root, ordinary()).await;
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Valid);
    let user_id = made.token.as_ref().unwrap().user_id.clone();
    let disabling = DisableUserRequest { user_id: user_id.clone(), ..Default::default() };
    root.disable_user(disabling).await.unwrap();
    root.enable_user(EnableUserRequest { user_id, ..Default::default() }).await.unwrap();
    revoked(&mut root, &made.token.unwrap().id, "").await;
    assert_eq!(verified(&mut root, &made.secret, &[]).await.verdict(), Verdict::Revoked);
    let listed = || async {
        let page = replica.root().list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
        page.tokens.iter().any(|token| token.last_use_time.is_some())
    };
    eventually("its jobs work: uses are written down", async || listed().await.then_some(())).await;
    let seals = "SELECT count(*) FROM audit_seals";
    eventually("events are sealed", async || (installation.database.count(seals).await > 0).then_some(()))
        .await;

    let mut serving = PgConnection::connect_with(&options).await.unwrap();
    for forbidden in [
        "UPDATE token_events SET actor = 'x'",
        "DELETE FROM token_events",
        "TRUNCATE token_events",
        "UPDATE audit_seals SET events = 0",
        "DELETE FROM audit_seals",
        "SELECT purge_audit(1, sha256(''), now(), '', '')",
        "INSERT INTO audit_seals (sequence, first_id, last_id, events, events_hash, previous, seal_time, key_id, seal,
             purge_time) SELECT 9, 9, 9, 1, seal, seal, seal_time, key_id, seal, now() FROM audit_seals LIMIT 1",
        "INSERT INTO token_events (id, kind, token_id, organization_id, user_id, actor, changes)
             OVERRIDING SYSTEM VALUE
             SELECT id + 1000, kind, token_id, organization_id, user_id, actor, changes FROM token_events LIMIT 1",
        "SELECT setval('token_events_id_seq', 1)",
        "ALTER TABLE tokens DISABLE TRIGGER ALL",
        "DROP TABLE token_events",
        "CREATE TABLE public.mine (a int)",
    ] {
        let refused = sqlx::raw_sql(forbidden).execute(&mut serving).await;
        let code =
            refused.expect_err(forbidden).into_database_error().and_then(|e| e.code().map(|c| c.to_string()));
        assert_eq!(code.as_deref(), Some("42501"), "{forbidden}");
    }
}
