//! How much of a limit three replicas admit together: `cargo bench --bench verify -- limits`, about a
//! minute. Each limit gets twice what it admits, divided evenly among the replicas or not. What is admitted
//! after the burst is used up is compared with what the rate allows.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{bail, ensure};
use sqlx::{ConnectOptions as _, Connection as _};
use tokend::api::proto::{Consistency, Verdict};
use tokio::runtime::Builder;

use super::super::connection::Mode;
use super::super::database::{Postgres, Statements, execute};
use super::super::load::{Load, Measured, Pace};
use super::super::plan::Plan;
use super::super::population::{Population, RatePlan};
use super::super::rounds::count;
use super::super::scenarios::await_answers;
use super::super::servers::{Server, TOKEND, cpu_of_children};
use super::super::workload::{Pick, Workload};
use super::id;

const DATABASE: &str = "shared_limits";
const REPLICAS: usize = 3;

/// A lease of a share lasts this long at most.
const LEASE: Duration = Duration::from_secs(1);

/// How long a burst lasts at twice the rate, and some more.
const WARM_UP: Duration = Duration::from_secs(2);

/// The load of a limit, as a multiple of its rate.
const TIMES: f64 = 2.0;

const PLANS: [RatePlan; 2] = [
    RatePlan { name: "fast", requests: 1_000, burst: 1_000 },
    RatePlan { name: "slow", requests: 10, burst: 10 },
];

/// How a load is divided among the replicas, and the least part of the rate that is to be admitted.
#[derive(Debug)]
struct Division {
    name: &'static str,
    parts: [f64; REPLICAS],
    goal: f64,
}

const DIVISIONS: [Division; 2] = [
    Division { name: "evenly", parts: [1.0 / 3.0; REPLICAS], goal: 0.98 },
    Division { name: "90, 9 and 1 %", parts: [0.9, 0.09, 0.01], goal: 0.9 },
];

/// What replicas admitted of a limit, and how long their answers took.
#[derive(Debug)]
struct Admitted {
    rate: u32,
    valid: u64,
    limited: u64,
    /// Requests that ended with an error.
    refused: u64,
    /// Of the slowest replica, in milliseconds.
    p99: f64,
}

/// Measures all divisions of all limits and writes the table.
pub(crate) fn run(plan: &Plan, postgres: &Postgres, population: &Population) -> anyhow::Result<()> {
    prepare(postgres, population)?;
    let log = plan.output.join("limits.log");
    let serve = |_| Server::tokend(TOKEND.as_ref(), &postgres.url(DATABASE), &population.key, &log);
    let replicas = (0..REPLICAS).map(serve).collect::<anyhow::Result<Vec<_>>>()?;
    for replica in &replicas {
        // A token without a limit.
        let workload = requests(&population.secrets[0]);
        await_answers("a replica", &population.caller, || load(replica, &workload, 20.0, Duration::ZERO))?;
    }
    let (statements, postmaster) = (Statements::open(postgres)?, postgres.pid()?);
    let mut text =
        "| divided | rate/s | admitted / allowed | goal | most in bounds | answers | limited | errors | p99 ms |\n\
         |---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    let mut costs = String::new();
    for (division, secrets) in DIVISIONS.iter().zip(population.secrets[1..].chunks_exact(PLANS.len())) {
        println!("a load that is divided {} for {:?}", division.name, plan.limits_duration);
        let before = (statements.of(DATABASE)?, cpu_of_children(postmaster));
        let all = measure(plan, &population.caller, &replicas, division, secrets)?;
        let after = (statements.of(DATABASE)?, cpu_of_children(postmaster));
        for admitted in &all {
            write_row(&mut text, division, admitted, plan.limits_duration)?;
        }
        // What the warm-up had is counted among it, so both are a little more than they should be.
        let answers = count(all.iter().map(|found| found.valid + found.limited).sum());
        let cpu = after.1.saturating_sub(before.1).as_secs_f64() * 1e6 / answers;
        let statements = match (after.0, before.0) {
            (Some(after), Some(before)) => format!("{:.3}", count(after - before) / answers),
            _ => "–".to_owned(),
        };
        writeln!(costs, "| {} | {cpu:.1} | {statements} |", division.name)?;
    }
    let text = format!("{text}\n| divided | Postgres CPU µs | statements |\n|---|---|---|\n{costs}");
    println!("\n{text}");
    fs::write(plan.output.join("limits.md"), text)?;
    Ok(())
}

/// Fills the database, and gives a plan to a token for each division and limit.
fn prepare(postgres: &Postgres, population: &Population) -> anyhow::Result<()> {
    let needed = 1 + DIVISIONS.len() * PLANS.len();
    ensure!(population.secrets.len() >= needed, "{needed} tokens are needed");
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        population.fill(postgres, DATABASE, TOKEND.as_ref(), 0).await?;
        postgres.count_statements(DATABASE).await?;
        let mut connection = postgres.options(DATABASE).connect().await?;
        for plan in PLANS {
            plan.insert(&mut connection).await?;
        }
        for (secret, plan) in population.secrets[1..needed].iter().zip(PLANS.iter().cycle()) {
            let (name, id) = (plan.name, id(secret)?);
            let update = format!("UPDATE tokens SET plan = '{name}' WHERE id = '{id}'");
            execute(&mut connection, update).await?;
        }
        Ok(connection.close().await?)
    })
}

/// Puts a load on each replica for each limit, all at once.
fn measure(
    plan: &Plan,
    caller: &str,
    replicas: &[Server],
    division: &Division,
    secrets: &[String],
) -> anyhow::Result<Vec<Admitted>> {
    thread::scope(|scope| {
        let start = |replica, part, secret: &str, rate| {
            let workload = requests(secret);
            scope.spawn(move || {
                load(replica, &workload, rate * TIMES * part, plan.limits_duration).run(caller, || ())
            })
        };
        let started: Vec<Vec<_>> = PLANS
            .iter()
            .zip(secrets)
            .map(|(plan, secret)| {
                let replicas = replicas.iter().zip(division.parts);
                replicas
                    .map(|(replica, part)| start(replica, part, secret, f64::from(plan.requests)))
                    .collect()
            })
            .collect();
        let limits = PLANS.iter().zip(started).map(|(plan, loads)| {
            let measured = loads.into_iter().map(|load| match load.join() {
                Ok(measured) => measured,
                Err(_) => bail!("a load panicked"),
            });
            Ok(Admitted::sum(plan.requests, &measured.collect::<anyhow::Result<Vec<_>>>()?))
        });
        limits.collect()
    })
}

impl Admitted {
    fn sum(rate: u32, measured: &[Measured]) -> Self {
        let slowest = measured.iter().map(|load| load.latency.value_at_quantile(0.99)).max();
        Self {
            rate,
            valid: measured.iter().map(|load| load.answers).sum(),
            limited: measured.iter().map(|load| load.limited).sum(),
            refused: measured.iter().map(|load| load.refusals.len()).sum(),
            p99: count(slowest.unwrap_or(0)) / 1e6,
        }
    }
}

/// Writes a limit's row: a rate admits at most its burst and what comes in the time and one lease.
fn write_row(text: &mut String, division: &Division, found: &Admitted, took: Duration) -> anyhow::Result<()> {
    let rate = f64::from(found.rate);
    let used = count(found.valid) / (rate * took.as_secs_f64());
    let most = rate + rate * (took + LEASE).as_secs_f64();
    let met = |met| if met { "met" } else { "not met" };
    writeln!(
        text,
        "| {} | {} | {used:.3} | ≥ {}, {} | {} | {} | {} | {} | {:.1} |",
        division.name,
        found.rate,
        division.goal,
        met(used >= division.goal),
        met(count(found.valid) <= most),
        found.valid + found.limited,
        found.limited,
        found.refused,
        found.p99,
    )?;
    Ok(())
}

fn requests(secret: &str) -> Workload {
    Workload::new([secret], Consistency::Bounded, Mode::Unary, Verdict::Valid, Pick::Random)
}

fn load<'a>(replica: &Server, workload: &'a Workload, rate: f64, duration: Duration) -> Load<'a> {
    Load {
        address: replica.address,
        mode: Mode::Unary,
        workload,
        connections: 1,
        pace: Pace::PerSecond(rate),
        may_refuse: true,
        may_limit: true,
        warm_up: WARM_UP,
        duration,
    }
}
