//! Overload: how many requests succeed at several times the capacity, and how soon the others are
//! rejected. `cargo bench --bench verify -- overload`. Each round measures a server's capacity and then
//! the overload, so that only ratios within a round count.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use sqlx::ConnectOptions as _;
use tokend::api::proto::{Consistency, Verdict};
use tokend::clock;
use tokend::secret::Keyring;
use tokio::runtime::Runtime;

use super::connection::Mode;
use super::database::{Postgres, execute};
use super::load::{Load, Measured, Pace};
use super::plan::Plan;
use super::population::Population;
use super::report::spread;
use super::rounds::count;
use super::scenarios::await_answers;
use super::servers::{Server, TOKEND};
use super::workload::{Pick, Workload};

/// The load, as a multiple of the capacity.
const TIMES: u32 = 5;

/// The duration of each measurement, and the time for queues to fill before it.
const DURATION: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(1_500);

/// So many that the calls in flight on each stay below a connection's limit, and for FULL so many that
/// no share of the queue of waiting calls is reached first.
const CONNECTIONS: usize = 8;
const CONNECTIONS_OF_FULL: usize = 32;

/// Makes each load of records take longer; each poll of the feed, too.
const SLOW: &str = "CREATE OR REPLACE VIEW server_epoch AS
    SELECT (SELECT system_identifier FROM pg_control_system()) || '/'
        || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/'
        || (SELECT mark FROM server_mark) AS epoch
    FROM pg_sleep(0.2)";

/// A server to overload.
struct Case {
    name: &'static str,
    server: Server,
    workload: Workload,
    connections: usize,
    /// The number of calls in flight that saturates it.
    saturating: usize,
    /// Whether it rejects requests: then it gets a multiple of its capacity per second. A server that
    /// does not reject gets a multiple of the calls in flight, whose client waits.
    refuses: bool,
}

/// The results of a case in one round.
struct Round {
    capacity: f64,
    goodput: f64,
    p99: f64,
    refused: f64,
    refused_p99: f64,
}

/// Measures all cases and writes the table.
pub(crate) fn run(plan: &Plan, postgres: &Postgres, population: &Population) -> anyhow::Result<()> {
    let cases = prepare(plan, postgres, population)?;
    let caller = &population.caller;
    for case in &cases {
        await_answers(case.name, caller, || case.load(Pace::PerSecond(20.0), 1))?;
    }
    let mut rounds: Vec<Vec<Round>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.overload_rounds {
        println!("round {} of {}", round + 1, plan.overload_rounds);
        for (case, rounds) in cases.iter().zip(&mut rounds) {
            rounds.push(case.measure(caller).with_context(|| case.name.to_owned())?);
        }
    }
    let text = report(&cases, &rounds)?;
    println!("\n{text}");
    fs::write(plan.output.join("overload.md"), text)?;
    Ok(())
}

fn prepare(plan: &Plan, postgres: &Postgres, population: &Population) -> anyhow::Result<Vec<Case>> {
    let runtime = Runtime::new()?;
    let log = plan.output.join("overload.log");
    // A separate database for each: the one with the lost key writes new MACs.
    let serve = |database: &str, key: &str, slow: bool| {
        runtime.block_on(async {
            population.fill(postgres, database, TOKEND.as_ref(), 0).await?;
            if slow {
                let mut connection = postgres.options(database).connect().await?;
                execute(&mut connection, SLOW.to_owned()).await?;
            }
            anyhow::Ok(())
        })?;
        Server::tokend(TOKEND.as_ref(), &postgres.url(database), key, &log)
    };
    let lost = Keyring::generate_entry(&mut clock::randomness())?.expose_secret().to_owned();
    let workload = |consistency, verdict, secrets: &[String]| {
        let secrets = secrets.iter().map(String::as_str);
        Workload::new(secrets, consistency, Mode::Unary, verdict, Pick::Random)
    };
    let (secrets, bounded) = (&population.secrets, Consistency::Bounded);
    let case = |name, server, workload, (connections, saturating), refuses| Case {
        name,
        server,
        workload,
        connections,
        saturating,
        refuses,
    };
    Ok(vec![
        case(
            "warm Verify, 5 times the calls in flight",
            serve("overload_warm", &population.key, false)?,
            workload(bounded, Verdict::Valid, secrets),
            (CONNECTIONS, 400),
            false,
        ),
        case(
            "CreateToken",
            serve("overload_create", &population.key, false)?,
            Workload::create(),
            (CONNECTIONS, 8),
            true,
        ),
        // All but the first have another token's hash, which takes as long to check.
        case(
            "Verify by Argon2id, the MACs' key being lost",
            serve("overload_lost", &lost, false)?,
            workload(bounded, Verdict::NotFound, &secrets[1..]),
            (CONNECTIONS, 8),
            true,
        ),
        case(
            "FULL Verify, each query 0.2 s slower",
            serve("overload_slow", &population.key, true)?,
            workload(Consistency::Full, Verdict::Valid, secrets),
            (CONNECTIONS_OF_FULL, 1_504),
            true,
        ),
    ])
}

impl Case {
    fn measure(&self, caller: &str) -> anyhow::Result<Round> {
        let run = |pace| self.load(pace, self.connections).run(caller, || ());
        let capacity = run(Pace::InFlight(self.saturating))?.per_second();
        let over = if self.refuses {
            Pace::PerSecond(capacity * f64::from(TIMES))
        } else {
            Pace::InFlight(self.saturating * TIMES as usize)
        };
        let measured: Measured = run(over)?;
        let millis = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1e3;
        let (answers, refusals) = (count(measured.answers), count(measured.refusals.len()));
        Ok(Round {
            capacity,
            goodput: measured.per_second(),
            p99: millis(measured.latency.value_at_quantile(0.99)),
            refused: refusals / (answers + refusals),
            refused_p99: millis(measured.refusals.value_at_quantile(0.99)),
        })
    }

    fn load(&self, pace: Pace, connections: usize) -> Load<'_> {
        Load {
            address: self.server.address,
            mode: Mode::Unary,
            workload: &self.workload,
            connections,
            pace,
            may_refuse: self.refuses,
            may_limit: false,
            warm_up: WARM_UP,
            duration: DURATION,
        }
    }
}

fn report(cases: &[Case], rounds: &[Vec<Round>]) -> anyhow::Result<String> {
    let mut text = "| overloaded | can do/s | answers/s | answers / can do | goal | lowest to highest round | p99 ms | refused | p99 ms of refusals |\n\
         |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (case, rounds) in cases.iter().zip(rounds) {
        let middle = |value: fn(&Round) -> f64| spread(rounds.iter().map(value)).map_or(0.0, |found| found.1);
        let ratios = rounds.iter().map(|round| round.goodput / round.capacity);
        let (low, ratio, high) = spread(ratios).context("no round")?;
        writeln!(
            text,
            "| {} | {:.0} | {:.0} | {ratio:.2} | ≥ 0.8, {} | {low:.2} to {high:.2} | {:.0} | {:.0} % | {:.1} |",
            case.name,
            middle(|round| round.capacity),
            middle(|round| round.goodput),
            if ratio >= 0.8 { "met" } else { "not met" },
            middle(|round| round.p99),
            middle(|round| round.refused) * 100.0,
            middle(|round| round.refused_p99),
        )?;
    }
    Ok(text)
}
