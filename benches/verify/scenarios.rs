//! The servers of a run and the requests to each. Created once; `rounds` runs them repeatedly.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokend::api::proto::{Consistency, Verdict};

use super::connection::Mode;
use super::database::Postgres;
use super::load::{Load, Pace};
use super::plan::Plan;
use super::population::Population;
use super::roles::{DURABLE_HASH, REPLY};
use super::servers::{Server, TOKEND};
use super::workload::{Pick, Workload};

/// Names of scenarios that others are compared with.
pub(crate) const CEILING: &str = "ceiling";
pub(crate) const WARM: &str = "tokend warm";
pub(crate) const FULL: &str = "tokend FULL";
pub(crate) const COLD: &str = "tokend cold";
pub(crate) const STREAM: &str = "tokend VerifyStream";
pub(crate) const SELECT: &str = "one SELECT a Verify";
pub(crate) const ARGON2: &str = "Argon2id on every Verify";
pub(crate) const UNKNOWN: &str = "tokend, unknown ids";
pub(crate) const WRONG: &str = "tokend, wrong secrets";
pub(crate) const OTHER_WARM: &str = "other build, warm";
pub(crate) const OTHER_FULL: &str = "other build, FULL";
pub(crate) const OTHER_STREAM: &str = "other build, VerifyStream";

/// How long a server may take until its responses are as expected.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a new server is left idle.
const SETTLING: Duration = Duration::from_millis(300);

/// The server of a scenario.
#[derive(Debug)]
pub(crate) enum Who {
    /// One that runs all the time.
    Running(Rc<Server>),
    /// A new tokend each time, with an empty cache.
    Fresh { url: String, key: String, log: PathBuf, used: RefCell<Option<Rc<Server>>> },
}

/// The database of a server, for its processor time and statements.
#[derive(Debug)]
pub(crate) enum Behind {
    Postgres,
    /// A database in Postgres whose statements are counted, and how long it works on after a load.
    Counted(&'static str, Duration),
    /// Another process.
    Process(Rc<Server>),
}

/// How much a scenario is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Demand {
    /// As much as it can do.
    Full,
    /// As much as it can do; and also, on a schedule, half of what this scenario can do.
    FullAndHalfOf(&'static str),
    /// So many a second, and no more.
    PerSecond(f64),
}

/// The requests and the server of one measurement.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The size of its table; `None` if it has none.
    pub(crate) table: Option<u32>,
    pub(crate) who: Who,
    pub(crate) mode: Mode,
    pub(crate) workload: Rc<Workload>,
    /// Requests sent before the first round, so that the cache has all tokens.
    pub(crate) before: Option<Rc<Workload>>,
    pub(crate) in_flight: usize,
    pub(crate) demand: Demand,
    pub(crate) behind: Behind,
    /// How many times as long as the others it is measured.
    pub(crate) times: u32,
}

/// All requests of a run.
struct Catalogue {
    valid: Rc<Workload>,
    each_once: Rc<Workload>,
    full: Rc<Workload>,
    stream: Rc<Workload>,
    unknown: Rc<Workload>,
    wrong: Rc<Workload>,
    first: Rc<Workload>,
}

impl Catalogue {
    fn new(population: &Population) -> Self {
        let make = |secrets: &[String], consistency, mode, verdict, pick| {
            let secrets = secrets.iter().map(String::as_str);
            Rc::new(Workload::new(secrets, consistency, mode, verdict, pick))
        };
        let (secrets, bounded) = (&population.secrets, Consistency::Bounded);
        let (valid, not_found) = (Verdict::Valid, Verdict::NotFound);
        Self {
            valid: make(secrets, bounded, Mode::Unary, valid, Pick::Random),
            each_once: make(secrets, bounded, Mode::Unary, valid, Pick::EachOnce),
            full: make(secrets, Consistency::Full, Mode::Unary, valid, Pick::Random),
            stream: make(secrets, bounded, Mode::Stream, valid, Pick::Random),
            unknown: make(&population.unknown, bounded, Mode::Unary, not_found, Pick::Random),
            wrong: make(&population.wrong, bounded, Mode::Unary, not_found, Pick::Random),
            first: make(&secrets[..1], bounded, Mode::Unary, valid, Pick::Random),
        }
    }
}

/// Starts the servers and lists the scenarios. `reply` is the response of the servers without a
/// database.
pub(crate) fn prepare(
    plan: &Plan,
    postgres: &Postgres,
    population: &Population,
    reply: &str,
) -> anyhow::Result<Vec<Scenario>> {
    let workload = Catalogue::new(population);
    let ready_made = [(REPLY, reply), (DURABLE_HASH, population.durable_hash.as_str())];
    let each_once = Rc::clone(&workload.each_once);
    let mut scenarios = Vec::new();
    let mut add = |name, table: Option<u32>, who: Who, workload: &Rc<Workload>| {
        let mode = if [STREAM, OTHER_STREAM].contains(&name) { Mode::Stream } else { Mode::Unary };
        let in_flight = if mode == Mode::Stream { plan.stream_in_flight } else { plan.in_flight };
        let main = table.is_none_or(|table| table == plan.main_table);
        let demand = if main { demand(name) } else { Demand::Full };
        if plan.includes(name) || (name == CEILING) {
            let cached = [WARM, FULL, STREAM, OTHER_WARM, OTHER_FULL, OTHER_STREAM].contains(&name);
            let before = cached.then(|| Rc::clone(&each_once));
            let workload = Rc::clone(workload);
            // With few responses per second, a round might otherwise have none.
            let times = if name == ARGON2 { 3 } else { 1 };
            let behind = Behind::Postgres;
            scenarios.push(Scenario {
                name,
                table,
                who,
                mode,
                workload,
                before,
                in_flight,
                demand,
                behind,
                times,
            });
        }
    };
    add(CEILING, None, Who::Running(Server::role("ceiling", &ready_made)?.into()), &workload.valid);
    add(ARGON2, None, Who::Running(Server::role("argon2", &ready_made)?.into()), &workload.first);
    for &table in &plan.tables {
        let url = postgres.url(&database_name(table));
        let log = plan.output.join("tokend.log");
        let settings = [("DATABASE_URL", url.as_str()), ("TOKEND_KEYS", population.key.as_str())];
        let tokend = Rc::new(Server::tokend(TOKEND.as_ref(), &url, &population.key, &log)?);
        let select = Rc::new(Server::role("select", &settings)?);
        let size = Some(table);
        let fresh =
            Who::Fresh { url: url.clone(), key: population.key.clone(), log, used: RefCell::default() };
        add(WARM, size, Who::Running(Rc::clone(&tokend)), &workload.valid);
        add(FULL, size, Who::Running(Rc::clone(&tokend)), &workload.full);
        add(SELECT, size, Who::Running(select), &workload.valid);
        add(COLD, size, fresh, &workload.each_once);
        if table == plan.main_table {
            add(STREAM, size, Who::Running(Rc::clone(&tokend)), &workload.stream);
            add(UNKNOWN, size, Who::Running(Rc::clone(&tokend)), &workload.unknown);
            add(WRONG, size, Who::Running(tokend), &workload.wrong);
            if let Some(program) = &plan.other {
                let (settings, log) = (&plan.other_settings, plan.output.join("other.log"));
                let url = plan.other_build().map_or(url, |_| postgres.url(&other_database_name(table)));
                let other = Server::tokend_with(settings, program, &url, &population.key, &log)?;
                let other = Rc::new(other);
                add(OTHER_WARM, size, Who::Running(Rc::clone(&other)), &workload.valid);
                add(OTHER_FULL, size, Who::Running(Rc::clone(&other)), &workload.full);
                add(OTHER_STREAM, size, Who::Running(other), &workload.stream);
            }
        }
    }
    Ok(scenarios)
}

/// Returns how much a scenario on the main table is asked for.
fn demand(name: &str) -> Demand {
    match name {
        CEILING | WARM => Demand::FullAndHalfOf(CEILING),
        FULL => Demand::FullAndHalfOf(FULL),
        SELECT => Demand::FullAndHalfOf(SELECT),
        _ => Demand::Full,
    }
}

/// Returns the name of a size's database.
pub(crate) fn database_name(others: u32) -> String {
    format!("tokens_{others}")
}

/// Returns the name of the database of another build, whose schema may differ.
pub(crate) fn other_database_name(others: u32) -> String {
    format!("other_tokens_{others}")
}

/// Waits until a server responds as expected to a small part of a load.
pub(crate) fn await_answers<'a>(name: &str, caller: &str, load: impl Fn() -> Load<'a>) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let little = Load {
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(10),
            // So it is counted by its scheduled time, however late the response comes.
            may_refuse: false,
            ..load()
        };
        match little.run(caller, || ()) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => bail!("{name} gives no right answers: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Scenario {
    /// Returns the server, ready to respond.
    pub(crate) fn server(&self, caller: &str) -> anyhow::Result<Rc<Server>> {
        match &self.who {
            Who::Running(server) => Ok(Rc::clone(server)),
            Who::Fresh { url, key, log, used } => {
                // Stops the one of the last round.
                used.take();
                let server = Rc::new(Server::tokend(TOKEND.as_ref(), url, key, log)?);
                self.await_answers(&server, caller)?;
                // Its other workers may still wait to retry the database.
                std::thread::sleep(SETTLING);
                used.replace(Some(Rc::clone(&server)));
                Ok(server)
            }
        }
    }

    /// Waits until the server responds as expected.
    pub(crate) fn await_answers(&self, server: &Server, caller: &str) -> anyhow::Result<()> {
        await_answers(self.name, caller, || self.load(server, Pace::PerSecond(100.0)))
    }

    /// Returns a load with this scenario's requests.
    pub(crate) fn load(&self, server: &Server, pace: Pace) -> Load<'_> {
        Load {
            address: server.address,
            mode: self.mode,
            workload: &self.workload,
            connections: 1,
            pace,
            may_refuse: false,
            may_limit: false,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
        }
    }
}
