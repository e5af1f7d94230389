//! The scenarios of limits: tokens with and without a plan in two databases of the same size, and two
//! baselines that limit and do nothing else. `rounds` runs them among the others. Their names begin with
//! `limits:`, so that `TOKEND_BENCH_ONLY` selects them.

pub(crate) mod utilisation;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokend::api::proto::{Consistency, Verdict};
use tokend::secret::{Prefix, Secret};
use tokio::runtime::Builder;
use uuid::Uuid;

use super::connection::Mode;
use super::database::{Postgres, execute};
use super::plan::Plan;
use super::population::{Population, RatePlan};
use super::roles::{REPLY, VALKEY, update};
use super::scenarios::{Behind, Demand, Scenario, Who};
use super::servers::{Server, TOKEND};
use super::workload::{Pick, Workload};

/// Names of scenarios.
pub(crate) const UPDATE: &str = "limits: one UPDATE a Verify";
pub(crate) const UPDATE_LATER: &str = "limits: one UPDATE, commits not awaited";
pub(crate) const VALKEY_SCRIPT: &str = "limits: GCRA in Valkey";
pub(crate) const HOT: [&str; 2] = ["limits: 1000 hot tokens, unlimited", "limits: 1000 hot tokens, limited"];
pub(crate) const WARM: [&str; 2] = ["limits: all tokens, unlimited", "limits: all tokens, limited"];
pub(crate) const SPARSE: [&str; 2] =
    ["limits: each once a minute, unlimited", "limits: each once a minute, limited"];
pub(crate) const COLD: [&str; 2] = ["limits: cold, unlimited", "limits: cold, limited"];
const NAMES: [[&str; 2]; 4] = [HOT, WARM, SPARSE, COLD];

/// The databases without and with a plan, and that of the counters.
const DATABASES: [&str; 2] = ["unlimited_tokens", "limited_tokens"];
const COUNTERS: &str = "counters";

/// A limit that no load of the bench reaches.
const AMPLE: RatePlan = RatePlan { name: "ample", requests: 1_000_000, burst: 1_000_000 };

/// How many tokens are hot.
const HOT_TOKENS: usize = 1_000;

/// After this time no share is leased any more, and what was left is returned.
const SHARES_END: Duration = Duration::from_millis(1_500);

/// Returns whether a scenario of limits is measured.
pub(crate) fn is_wanted(plan: &Plan) -> bool {
    let baselines = [UPDATE, UPDATE_LATER, VALKEY_SCRIPT];
    NAMES.as_flattened().iter().chain(&baselines).any(|name| plan.includes(name))
}

/// Fills the databases, starts the servers and lists the scenarios. `reply` is the response of the
/// baselines.
pub(crate) fn prepare(
    plan: &Plan,
    postgres: &Postgres,
    population: &Population,
    reply: &str,
) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios = baselines(plan, postgres, population, reply)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for (place, database) in DATABASES.into_iter().enumerate() {
        if !NAMES.iter().any(|names| plan.includes(names[place])) {
            continue;
        }
        runtime.block_on(async {
            let limit = (place == 1).then_some(AMPLE);
            population.fill_with(postgres, database, TOKEND.as_ref(), 0, limit).await?;
            postgres.count_statements(database).await
        })?;
        let (url, log) = (postgres.url(database), plan.output.join("limits.log"));
        let server = Rc::new(Server::tokend(TOKEND.as_ref(), &url, &population.key, &log)?);
        runtime.block_on(check(&server, population, place))?;
        let running = || Who::Running(Rc::clone(&server));
        let counted = || Behind::Counted(database, SHARES_END);
        let each_once = workload(&population.secrets, Pick::EachOnce);
        let hot = &population.secrets[..HOT_TOKENS.min(population.secrets.len())];
        let once_a_minute = f64::from(plan.verified) / 60.0;
        let scenario = |names: [&'static str; 2], who, workload| Scenario {
            name: names[place],
            table: None,
            who,
            mode: Mode::Unary,
            workload,
            before: Some(Rc::clone(&each_once)),
            in_flight: plan.in_flight,
            demand: Demand::Full,
            behind: counted(),
            times: 1,
        };
        let fresh = Who::Fresh { url, key: population.key.clone(), log, used: RefCell::default() };
        let made = [
            scenario(HOT, running(), workload(hot, Pick::Random)),
            scenario(WARM, running(), workload(&population.secrets, Pick::Random)),
            Scenario {
                demand: Demand::PerSecond(once_a_minute),
                times: 5,
                ..scenario(SPARSE, running(), workload(&population.secrets, Pick::InTurn))
            },
            // Its memory counts while the shares are in use.
            Scenario {
                before: None,
                behind: Behind::Postgres,
                ..scenario(COLD, fresh, Rc::clone(&each_once))
            },
        ];
        scenarios.extend(made.into_iter().filter(|made| plan.includes(made.name)));
    }
    Ok(scenarios)
}

/// Checks that a server has so many limits for a token, so that nothing is measured without them.
async fn check(server: &Server, population: &Population, limits: usize) -> anyhow::Result<()> {
    let answer = server.verify(&population.secrets[0], &population.caller).await?;
    let found = answer.limits.len();
    ensure!(found == limits, "a token has {found} limits instead of {limits}");
    Ok(())
}

/// Starts the servers that limit and do nothing else, and lists their scenarios.
fn baselines(
    plan: &Plan,
    postgres: &Postgres,
    population: &Population,
    reply: &str,
) -> anyhow::Result<Vec<Scenario>> {
    let requests = workload(&population.secrets, Pick::Random);
    let scenario = |name, server: Server, behind| Scenario {
        name,
        table: None,
        who: Who::Running(server.into()),
        mode: Mode::Unary,
        workload: Rc::clone(&requests),
        before: None,
        in_flight: plan.in_flight,
        demand: Demand::Full,
        behind,
        times: 1,
    };
    let mut scenarios = Vec::new();
    if plan.includes(UPDATE) || plan.includes(UPDATE_LATER) {
        Builder::new_current_thread().enable_all().build()?.block_on(fill_counters(postgres, population))?;
    }
    let url = postgres.url(COUNTERS);
    let later = format!("{url}&options=-csynchronous_commit%3Doff");
    for (name, url) in [(UPDATE, url), (UPDATE_LATER, later)] {
        if plan.includes(name) {
            let server = Server::role("update", &[("DATABASE_URL", &url), (REPLY, reply)])?;
            scenarios.push(scenario(name, server, Behind::Postgres));
        }
    }
    if plan.includes(VALKEY_SCRIPT) {
        match Server::valkey()? {
            Some(valkey) => {
                let address = valkey.address.to_string();
                let server = Server::role("valkey", &[(VALKEY, &address), (REPLY, reply)])?;
                scenarios.push(scenario(VALKEY_SCRIPT, server, Behind::Process(valkey.into())));
            }
            None => println!(
                "left out: {VALKEY_SCRIPT}: neither valkey-server nor redis-server is on the PATH; \
                 install the package valkey-server or redis-server"
            ),
        }
    }
    Ok(scenarios)
}

/// Returns a Verify of each of these tokens.
fn workload(secrets: &[String], pick: Pick) -> Rc<Workload> {
    let secrets = secrets.iter().map(String::as_str);
    Rc::new(Workload::new(secrets, Consistency::Bounded, Mode::Unary, Verdict::Valid, pick))
}

/// Makes the table with a counter for each token, unless it exists.
async fn fill_counters(postgres: &Postgres, population: &Population) -> anyhow::Result<()> {
    postgres.make(COUNTERS, TOKEND.as_ref()).await?;
    let mut connection = postgres.options(COUNTERS).connect().await?;
    let table = update::TABLE;
    // Half of each page is free, so that an update changes no index.
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table} (token_id uuid PRIMARY KEY, full_time timestamptz NOT NULL)
         WITH (fillfactor = 50)"
    );
    execute(&mut connection, create).await?;
    let ids = population.secrets.iter().map(|secret| id(secret)).collect::<anyhow::Result<Vec<_>>>()?;
    let insert = format!("INSERT INTO {table} SELECT unnest($1::uuid[]), now() ON CONFLICT DO NOTHING");
    sqlx::query(AssertSqlSafe(insert)).bind(ids).execute(&mut connection).await?;
    execute(&mut connection, format!("VACUUM ANALYZE {table}")).await?;
    Ok(connection.close().await?)
}

/// Returns the id in a secret.
fn id(secret: &str) -> anyhow::Result<Uuid> {
    Ok(Uuid::from_bytes(Secret::parse(secret, &Prefix::default())?.id().to_bytes()))
}
