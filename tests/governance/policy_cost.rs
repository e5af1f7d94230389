//! What a policy's dry run and its enforcement cost for users with many tokens: rows that Postgres reads.

use std::time::Duration;

use tokend::api::proto::{CheckPolicyRequest, EnforcePolicyRequest, Policy};
use tokend::jobs::retention::Retention;
use tokend::server::ServerConfig;

use super::policy::set;
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};

const TOKENS: i64 = 20_000;

/// The counters of rows: all, and those by an index, which counting uses.
const ALL: &str = "seq_tup_read + idx_tup_fetch";
const BY_INDEX: &str = "idx_tup_fetch";

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

/// Returns how many rows of tokens the sessions that are over have read, or only those by an index.
async fn rows_read(database: &Database, counters: &str) -> i64 {
    // A session counts what it has read at its end, at the latest.
    eventually("all other sessions are over", async || {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        (database.count(others).await == 0).then_some(())
    })
    .await;
    database.count(format!("SELECT {counters} FROM pg_stat_user_tables WHERE relname = 'tokens'")).await
}

/// Starts a replica on a database in which nothing else reads many tokens.
async fn serve(installation: &Installation) -> Replica {
    let interval = Duration::from_hours(1);
    let retention = Retention { warnings: Vec::new(), interval, ..installation.config().retention };
    installation.serve(ServerConfig { retention, ..installation.config() }).await
}

#[tokio::test]
async fn a_dry_run_reads_each_token_of_a_user_a_few_times_however_many_pages_it_has() {
    for users in [1, 4] {
        let installation = Installation::new().await;
        let database = &installation.database;
        // No statistics of this table exist yet.
        fill(database, users).await;
        let before = rows_read(database, ALL).await;
        let replica = serve(&installation).await;

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
        let read = rows_read(database, ALL).await - before;
        assert!(read <= 4 * TOKENS, "{read} rows for {users} users in {pages} pages");
    }
}

#[tokio::test]
async fn a_page_of_enforcement_counts_the_tokens_of_a_user_once_before_its_locks_and_once_after_them() {
    /// A few less than there are: other rows that a page reads do not matter, and few tokens are revoked.
    const LIMIT: i32 = 19_990;
    let installation = Installation::new().await;
    let database = &installation.database;
    fill(database, 1).await;
    // Without statistics the purge of ended tokens reads all of them, a second after the start.
    database.execute("ANALYZE tokens").await;
    let before = rows_read(database, BY_INDEX).await;
    let replica = serve(&installation).await;
    let mut root = replica.root();
    set(&mut root, Policy { most_active_tokens_per_user: LIMIT, ..Policy::default() }).await;

    let page = root.enforce_policy(EnforcePolicyRequest::default()).await.unwrap().into_inner();

    assert_eq!(page.breaches.len(), 10);
    replica.shut_down().outcome().await.unwrap();
    let read = rows_read(database, BY_INDEX).await - before;
    assert!(read <= i64::from(LIMIT) * 5 / 2, "{read} rows");
}
