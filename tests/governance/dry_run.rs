//! What a dry run of a policy costs for users with many tokens: rows that Postgres reads, from the first
//! page to the last.

use std::time::Duration;

use tokend::api::proto::{CheckPolicyRequest, Policy};
use tokend::jobs::retention::Retention;
use tokend::server::ServerConfig;

use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::Installation;

const TOKENS: i64 = 20_000;

/// How many tokens each user may keep.
const LIMIT: i32 = 2_000;

/// Creates the tokens of `users` users, in turn, each a second older than the one before.
async fn fill(database: &Database, users: usize) {
    let tokens = format!(
        "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time, created_by,
            durable_hash, mac, mac_key_id)
        SELECT gen_random_uuid(), 'default', 'user-' || n % {users}, 'n', '{{}}', '{{}}',
            now() - n * interval '1 s', 'bootstrap', decode(repeat('00', 56), 'hex'), decode(repeat('00', 32), 'hex'),
            decode(repeat('00', 8), 'hex')
        FROM generate_series(1, {TOKENS}) AS n"
    );
    database.execute(tokens).await;
}

/// Returns how many rows of tokens the sessions that are over have read.
async fn rows_read(database: &Database) -> i64 {
    // A session counts what it has read at its end, at the latest.
    eventually("all other sessions are over", async || {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        (database.count(others).await == 0).then_some(())
    })
    .await;
    database
        .count("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'tokens'")
        .await
}

#[tokio::test]
async fn a_dry_run_reads_each_token_of_a_user_a_few_times_however_many_pages_it_has() {
    for users in [1, 4] {
        let installation = Installation::new().await;
        let database = &installation.database;
        // No statistics of this table exist yet.
        fill(database, users).await;
        let before = rows_read(database).await;
        // Nothing else reads many tokens.
        let interval = Duration::from_hours(1);
        let retention = Retention { warnings: Vec::new(), interval, ..installation.config().retention };
        let replica = installation.serve(ServerConfig { retention, ..installation.config() }).await;

        let policy = Policy { most_active_tokens_per_user: LIMIT, ..Policy::default() };
        let mut request = CheckPolicyRequest { policy: Some(policy), ..Default::default() };
        let (mut pages, mut breaches) = (0, 0);
        loop {
            let page = replica.root().check_policy(request.clone()).await.unwrap().into_inner();
            pages += 1;
            breaches += page.breaches.len();
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }

        assert_eq!(breaches, usize::try_from(TOKENS).unwrap() - users * usize::try_from(LIMIT).unwrap());
        assert!(pages >= 80, "{pages}");
        replica.shut_down().outcome().await.unwrap();
        let read = rows_read(database).await - before;
        assert!(read <= 4 * TOKENS, "{read} rows for {users} users in {pages} pages");
    }
}
