//! Plans for the tests of what is spent, and clients that spend.

use std::time::Duration;

use tokend::api::proto::{CreateTokenRequest, LimitStatus, Verdict, VerifyRequest, VerifyResponse};
use tokend::verify::Bounds;

use crate::support::client::{Client, created, nanos, ordinary};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::http::get;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};

/// A token of a plan.
pub(super) struct Limited {
    pub(super) id: String,
    pub(super) secret: String,
}

/// One request in a month: nothing refills while a test runs.
pub(super) fn rate(burst: i64) -> String {
    format!("'rate', 1, 2678400, {burst}, false, NULL, NULL, NULL, NULL")
}

pub(super) fn credits(initial: i64) -> String {
    format!("'credits', NULL, NULL, NULL, NULL, {initial}, NULL, NULL, NULL")
}

/// Makes a plan; each limit is its name, what it counts, and SQL of the rest.
pub(super) async fn plan(database: &Database, name: &str, limits: &[(&str, &str, String)]) {
    database
        .execute(format!(
            "INSERT INTO plans (organization_id, name, updated_by, update_time) VALUES ('default', '{name}', 'test', now())"
        ))
        .await;
    for (position, (limit, per, rest)) in limits.iter().enumerate() {
        database
            .execute(format!(
                "INSERT INTO plan_limits (plan_id, name, position, per, kind, requests, period, burst, admits_in_outage,
                     initial, refill_amount, refill_period, refill_adds)
                 SELECT plan_id, '{limit}', {position}, '{per}', {rest} FROM plans WHERE name = '{name}'"
            ))
            .await;
    }
}

/// Changes a plan as `SetPlan` does; `set` is SQL.
pub(super) async fn change(database: &Database, name: &str, set: &str) {
    let change = format!(
        "WITH plan AS (UPDATE plans SET revision = revision + 1 WHERE name = '{name}' RETURNING plan_id)
         UPDATE plan_limits l SET {set} FROM plan WHERE l.plan_id = plan.plan_id"
    );
    database.execute(change).await;
}

/// Creates a token of this plan.
pub(super) async fn limited(root: &mut Client, plan: &str) -> Limited {
    let made = created(root, CreateTokenRequest { plan: plan.to_owned(), ..ordinary() }).await;
    Limited { id: made.token.unwrap().id, secret: made.secret }
}

/// Waits until the record of a token stays in the cache.
pub(super) async fn settles(root: &mut Client, database: &Database, token: &Limited) {
    let made = database.count("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").await;
    eventually("the feed has passed its creation", async || {
        let answer = spent(root, &token.secret, 0).await.as_of_time;
        let again = spent(root, &token.secret, 0).await.as_of_time;
        (answer == again && nanos(answer.as_ref()) > i128::from(made) * 1_000).then_some(())
    })
    .await;
}

/// Spends `cost` of all limits.
pub(super) async fn spent(client: &mut Client, secret: &str, cost: u32) -> VerifyResponse {
    let request = VerifyRequest { secret: secret.to_owned(), cost: Some(cost), ..Default::default() };
    client.verify(request).await.unwrap().into_inner()
}

/// Returns the verdicts of so many requests, one after the other.
pub(super) async fn verdicts(client: &mut Client, secret: &str, requests: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for _ in 0..requests {
        verdicts.push(spent(client, secret, 1).await.verdict());
    }
    verdicts
}

pub(super) fn remaining(answer: &VerifyResponse) -> Vec<(&str, i64)> {
    answer.limits.iter().map(|LimitStatus { name, remaining, .. }| (name.as_str(), *remaining)).collect()
}

/// Returns the balance, and what of it is leased, was returned and is lost.
pub(super) async fn balance(replica: &Replica) -> (i64, i64, i64, i64) {
    // In one statement: a settlement between two would move credits from one column to another.
    let sql = "SELECT coalesce(sum(balance), 0)::bigint, coalesce(sum(debited - returned), 0)::bigint,
                   coalesce(sum(leased), 0)::bigint, coalesce(sum(lost), 0)::bigint
               FROM credit_balances";
    let mut connection = replica.installation.database.connect().await;
    sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap()
}

/// A replica whose link to the database can be cut; its cache lasts.
pub(super) async fn severable() -> (Proxy, Replica) {
    let installation = Installation::new().await;
    let link = Proxy::start(LinkState::Open).await;
    let mut config = installation.config();
    config.database = link.lead(&config.database);
    config.bounds = Bounds { max_staleness: Duration::from_secs(1), outage_grace: Duration::from_mins(2) };
    (link, installation.serve(config).await)
}

/// A rate that is admitted in an outage; nothing refills while a test runs.
pub(super) fn admitted(burst: i64) -> String {
    format!("'rate', 1, 2678400, {burst}, true, NULL, NULL, NULL, NULL")
}

/// Returns how many of so many requests were VALID, and that the others were refused.
pub(super) async fn admissions(client: &mut Client, secret: &str, requests: usize) -> usize {
    let verdicts = verdicts(client, secret, requests).await;
    assert!(
        verdicts.iter().all(|verdict| [Verdict::Valid, Verdict::RateLimited].contains(verdict)),
        "{verdicts:?}"
    );
    verdicts.iter().filter(|verdict| **verdict == Verdict::Valid).count()
}

/// Returns how often the replicas have asked the database.
pub(super) async fn rounds(replicas: &[Replica]) -> u128 {
    let mut rounds = 0;
    for replica in replicas {
        let (_, text) = get(replica.http, "/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix("tokend_limit_rounds_total "));
        rounds += line.unwrap().parse::<u128>().unwrap();
    }
    rounds
}
