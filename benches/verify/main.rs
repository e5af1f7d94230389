//! The load bench: `cargo bench --bench verify`. Starts its own Postgres, fills it, starts tokend and
//! the servers to compare it with, and measures all of them in interleaved rounds. `docs/benchmarks.md`
//! explains the results. With `-- overload` it measures overload instead, with `-- limits` how much of a limit
//! replicas admit; with `-- plot-delays FILE…
//! OUT.svg` it draws a distribution.
//!
//! `plan` settings · `database`, `population` the data · `servers`, `roles` the servers · `frame`,
//! `connection`, `answers`, `workload`, `load` the client · `scenarios`, `limits`, `rounds`, `overload` the runs
//! · `report`, `plot` the output.

mod answers;
mod connection;
mod database;
mod frame;
mod limits;
mod load;
mod overload;
mod plan;
#[path = "../plot/mod.rs"]
mod plot;
mod population;
mod report;
mod roles;
mod rounds;
mod scenarios;
mod servers;
mod workload;

use std::{env, fs};

use anyhow::{Context as _, bail};
use prost::Message as _;
use tokio::runtime::Builder;

use self::database::{Postgres, Statements};
use self::plan::Plan;
use self::population::Population;
use self::rounds::Runner;
use self::servers::{Server, TOKEND};

/// The same allocator as in tokend, so that no server has a better one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    if let Ok(role) = env::var(roles::ROLE) {
        return roles::run(&role);
    }
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let measuring = arguments.contains(&"--bench".to_owned());
    arguments.retain(|argument| argument != "--bench");
    match arguments.split_first() {
        Some((mode, files)) if mode == "plot-delays" => plot::delays(files),
        // `cargo test --all-targets` runs this too, and must not measure.
        _ if !measuring => Ok(()),
        Some((mode, [])) if mode == "overload" => run_apart(overload::run),
        Some((mode, [])) if mode == "limits" => run_apart(limits::utilisation::run),
        Some((mode, _)) => bail!("there is no mode {mode}"),
        None => run(&Plan::from_environment()?),
    }
}

/// Runs something other than the rounds, on the main thread, too.
fn run_apart(
    measure: impl FnOnce(&Plan, &Postgres, &Population) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let plan = Plan::from_environment()?;
    fs::create_dir_all(&plan.output)?;
    let postgres = Postgres::start(plan.data.as_deref())?;
    let population = Population::prepare(&postgres, plan.verified)?;
    measure(&plan, &postgres, &population)
}

/// Runs the plan, on the main thread: the processes that it starts end with it.
fn run(plan: &Plan) -> anyhow::Result<()> {
    fs::create_dir_all(&plan.output)?;
    let postgres = Postgres::start(plan.data.as_deref())?;
    let population = Population::prepare(&postgres, plan.verified)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for &table in &plan.tables {
        println!("filling a table of {table} tokens and the {} that are verified", plan.verified);
        let database = scenarios::database_name(table);
        runtime.block_on(population.fill(&postgres, &database, TOKEND.as_ref(), table))?;
    }
    if let Some(other) = plan.other_build() {
        let database = scenarios::other_database_name(plan.main_table);
        runtime.block_on(population.fill(&postgres, &database, other, plan.main_table))?;
    }
    let reply = runtime.block_on(typical_reply(plan, &postgres, &population))?;
    let mut scenarios = scenarios::prepare(plan, &postgres, &population, &reply)?;
    if limits::is_wanted(plan) {
        println!("filling tables of tokens with and without limits");
        scenarios.extend(limits::prepare(plan, &postgres, &population, &reply)?);
    }
    let statements = Statements::open(&postgres)?;
    let runner = Runner { plan, caller: &population.caller, postmaster: postgres.pid()?, statements };
    let series = runner.run(&scenarios)?;
    // Before their Postgres stops.
    drop(scenarios);
    report::write(plan, &series)
}

/// Gets one response from tokend, so that the ceiling returns the same.
async fn typical_reply(plan: &Plan, postgres: &Postgres, population: &Population) -> anyhow::Result<String> {
    let url = postgres.url(&scenarios::database_name(plan.main_table));
    let server = Server::tokend(TOKEND.as_ref(), &url, &population.key, &plan.output.join("tokend.log"))?;
    let secret = population.secrets.first().context("no secret")?;
    Ok(hex::encode(server.verify(secret, &population.caller).await?.encode_to_vec()))
}
