//! Runs all scenarios, round by round, so that disturbances of the machine affect all of them alike.
//! Keeps the values that the report needs from each round.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::connection::Mode;
use super::database::Statements;
use super::load::{Load, Pace};
use super::plan::Plan;
use super::scenarios::{Behind, CEILING, Demand, Scenario, Who};
use super::servers::{Server, cpu_of_children};

/// The results of one scenario in one round.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// In microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// CPU time of the server, and of its database, per response, in microseconds.
    pub(crate) cpu: f64,
    pub(crate) database_cpu: f64,
    /// Statements of Postgres per response, if they are counted.
    pub(crate) statements: Option<f64>,
    /// In mebibytes.
    pub(crate) resident: f64,
    /// The growth of `resident` per response, in bytes.
    pub(crate) grown: f64,
}

/// The results of one scenario in all rounds.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) table: Option<u32>,
    /// Requests per second of the schedule; `None` for a fixed number in flight.
    pub(crate) rate: Option<f64>,
    pub(crate) samples: Vec<Sample>,
    /// Over all rounds, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

/// Runs the scenarios of a plan.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) caller: &'a str,
    pub(crate) postmaster: u32,
    pub(crate) statements: Statements,
}

/// What a server and its database have used so far.
#[derive(Debug)]
struct Spent {
    cpu: Duration,
    database_cpu: Duration,
    statements: Option<u64>,
    /// Not so far, but now.
    resident: u64,
}

impl Runner<'_> {
    /// Fills the caches, determines the rates, and measures all rounds.
    pub(crate) fn run(&self, scenarios: &[Scenario]) -> anyhow::Result<Vec<Series>> {
        for scenario in scenarios {
            let Who::Running(server) = &scenario.who else { continue };
            scenario.await_answers(server, self.caller)?;
            if let Some(before) = &scenario.before {
                let load = Load {
                    mode: Mode::Unary,
                    workload: before,
                    connections: self.plan.connections,
                    duration: Duration::from_mins(5),
                    ..scenario.load(server, Pace::InFlight(self.plan.in_flight))
                };
                load.run(self.caller, || ())?;
            }
        }
        let mut rates = BTreeMap::new();
        for scenario in scenarios {
            let Demand::FullAndHalfOf(_) = scenario.demand else { continue };
            let able = self.measure(scenario, Pace::InFlight(scenario.in_flight), 2)?.0.per_second;
            rates.insert(scenario.name, able / 2.0);
        }
        let mut tasks = Vec::new();
        for scenario in scenarios {
            let paces = match scenario.demand {
                Demand::Full => vec![None],
                Demand::FullAndHalfOf(name) => {
                    [None].into_iter().chain(rates.get(name).map(|rate| Some(*rate))).collect()
                }
                Demand::PerSecond(rate) => vec![Some(rate)],
            };
            for rate in paces {
                tasks.push((scenario, rate, Series::of(scenario, rate)?));
            }
        }
        for round in 0..self.plan.rounds {
            println!("round {} of {}", round + 1, self.plan.rounds);
            // In a different order each round, so that no scenario always follows the same one.
            for place in order(tasks.len(), round) {
                let (scenario, rate, series) = &mut tasks[place];
                let pace = rate.map_or(Pace::InFlight(scenario.in_flight), Pace::PerSecond);
                let measured = self.measure(scenario, pace, scenario.times);
                let (sample, latency) = measured.with_context(|| scenario.name.to_owned())?;
                series.samples.push(sample);
                series.latency.add(&latency)?;
            }
        }
        Ok(tasks.into_iter().map(|(_, _, series)| series).collect())
    }

    fn measure(
        &self,
        scenario: &Scenario,
        pace: Pace,
        times: u32,
    ) -> anyhow::Result<(Sample, Histogram<u64>)> {
        let server = scenario.server(self.caller)?;
        let fresh = matches!(scenario.who, Who::Fresh { .. });
        let load = Load {
            connections: self.plan.connections,
            // Requests that are sent only once allow neither a warm-up nor a fixed duration.
            warm_up: if fresh { Duration::ZERO } else { self.plan.warm_up },
            duration: if fresh { Duration::from_mins(5) } else { self.plan.duration * times },
            ..scenario.load(&server, pace)
        };
        let mut before = None;
        let measured = load.run(self.caller, || before = Some(self.spent(scenario, &server)))?;
        if let Behind::Counted(_, rest) = scenario.behind {
            thread::sleep(rest);
        }
        let (before, after) = (before.context("it never began")??, self.spent(scenario, &server)?);
        let each = |before: Duration, after: Duration| {
            micros(after.saturating_sub(before)) / count(measured.answers)
        };
        let quantile = |quantile| count(measured.latency.value_at_quantile(quantile)) / 1e3;
        let statements = after.statements.zip(before.statements);
        let sample = Sample {
            per_second: measured.per_second(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            cpu: each(before.cpu, after.cpu),
            database_cpu: each(before.database_cpu, after.database_cpu),
            statements: statements.map(|(after, before)| count(after - before) / count(measured.answers)),
            resident: count(after.resident) / f64::from(1 << 20),
            grown: count(after.resident.saturating_sub(before.resident)) / count(measured.answers),
        };
        Ok((sample, measured.latency))
    }

    /// Returns what a server and its database have used so far.
    fn spent(&self, scenario: &Scenario, server: &Server) -> anyhow::Result<Spent> {
        let statements = match scenario.behind {
            Behind::Counted(database, _) => self.statements.of(database)?,
            Behind::Postgres | Behind::Process(_) => None,
        };
        let database_cpu = match &scenario.behind {
            Behind::Process(process) => process.cpu(),
            Behind::Postgres | Behind::Counted(..) => cpu_of_children(self.postmaster),
        };
        Ok(Spent { cpu: server.cpu(), database_cpu, statements, resident: server.resident() })
    }
}

impl Series {
    fn of(scenario: &Scenario, rate: Option<f64>) -> anyhow::Result<Self> {
        Ok(Self {
            name: scenario.name,
            table: scenario.table,
            rate,
            samples: Vec::new(),
            latency: Histogram::new(3)?,
        })
    }

    /// Returns whether this is the series of these parameters; used for the goals.
    pub(crate) fn is(&self, name: &str, table: Option<u32>, scheduled: bool) -> bool {
        self.name == name && (self.table == table || name == CEILING) && self.rate.is_some() == scheduled
    }
}

/// Returns the indexes below `count`, shuffled by the round.
fn order(count: usize, round: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by_key(|place| {
        (*place as u64 * 64 + round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
    });
    places
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}
