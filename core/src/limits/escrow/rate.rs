//! The model of rates. What is judged VALID from time a to time b is at most `burst` and what the database's clock
//! refilled from a less one lease to b. Clocks of replicas and of the database jump; statements are late or lost;
//! replicas freeze and are killed; the database fails over, is restored, and its plan changes.

use super::rate_replica::{LEASE, RULES, Replica, Rule};
use super::{Random, first_failure, needless};
use crate::limits::rate::{Allowance, Grant, Rate, Returned};

/// Requests, period and burst of a plan before and after its changes.
const PLANS: [(i64, i64, i64); 2] = [(3, 5, 8), (1, 3, 6)];
const REPLICAS: usize = 3;
/// How many cases are run with all rules, and at most without one.
const CASES: u64 = 20_000;
const CASES_WITHOUT_A_RULE: u64 = 200_000;

#[derive(Debug, Clone)]
enum Step {
    Pass(i64),
    /// Sends, executes and answers.
    Lease(usize, i64, bool),
    /// Sends and executes.
    Request(usize, i64, bool),
    Send(usize, i64, bool),
    Execute(usize),
    Answer(usize),
    /// Sends and executes; the answer is lost.
    LoseAnswer(usize, i64, bool),
    Spend(usize, i64),
    /// A request begins, and its replica is frozen.
    Begin(usize, i64),
    Finish(usize),
    SetDatabaseClock(i64),
    SetWallClock(usize, i64),
    Kill(usize),
    FailOver,
    Backup,
    Restore,
    ChangePlan,
}

/// The kinds of trouble of one case: few at once, since one often ends what another began.
struct Troubles([i64; 3]);

impl Troubles {
    fn any(random: &mut Random) -> Self {
        let (often, seldom) = (random.within(0..10), random.within(0..10));
        Self([often, often, seldom])
    }

    fn step(&self, random: &mut Random) -> Step {
        let replica = usize::try_from(random.within(0..3)).unwrap();
        let (returns, jump) = (random.within(0..2) == 0, random.within(-12..13));
        let wanted = random.within(1..9);
        let cost = random.within(1..9);
        let index = usize::try_from(random.within(0..12)).unwrap();
        let Some(trouble) = self.0.get(index) else {
            return match index {
                3 => Step::Pass(random.within(1..3)),
                4 => Step::Pass(random.within(1..12)),
                5..8 => Step::Lease(replica, wanted, returns),
                _ => Step::Spend(replica, cost),
            };
        };
        match (trouble, random.within(0..2)) {
            (0, 0) => Step::Begin(replica, cost),
            (0, _) => Step::Finish(replica),
            (1, 0) => Step::Send(replica, wanted, returns),
            (1, _) => Step::Execute(replica),
            (2, 0) => Step::Request(replica, wanted, returns),
            (2, _) => Step::Answer(replica),
            (3, _) => Step::LoseAnswer(replica, wanted, returns),
            (4, _) => Step::SetDatabaseClock(jump),
            (5, _) => Step::SetWallClock(replica, jump),
            (6, 0) => Step::Kill(replica),
            (6, _) => Step::FailOver,
            (7, 0) => Step::Backup,
            (7, _) => Step::Restore,
            (8, 0) => Step::ChangePlan,
            _ => Step::Pass(random.within(1..12)),
        }
    }
}

struct Spent {
    time: i64,
    amount: i64,
    plan: usize,
    /// Intervals that begin and end in one section are tested: not over a restore, and not before the leases from
    /// before a plan's change have ended.
    section: usize,
}

struct World {
    without: Option<Rule>,
    time: i64,
    /// The database's clock, and how far it has advanced in all, after each unit of time.
    clock: i64,
    advanced: i64,
    advanced_by: Vec<i64>,
    row: Option<Allowance>,
    backup: Option<Allowance>,
    plan: usize,
    revision: i64,
    epoch: u32,
    section: usize,
    change_time: i64,
    replicas: [Replica; REPLICAS],
    spent: Vec<Spent>,
}

impl World {
    fn new(without: Option<Rule>) -> Self {
        Self {
            without,
            time: 0,
            clock: 1_000,
            advanced: 0,
            advanced_by: Vec::new(),
            row: None,
            backup: None,
            plan: 0,
            revision: 0,
            epoch: 0,
            section: 0,
            change_time: -LEASE,
            replicas: [Replica::default(); REPLICAS],
            spent: Vec::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        let (time, epoch, without) = (self.time, self.epoch, self.without);
        match *step {
            Step::Pass(by) => (0..by).for_each(|_| self.pass()),
            Step::Lease(r, wanted, returns) => {
                self.run(&Step::Request(r, wanted, returns));
                self.replicas[r].receive(time, epoch, without);
            }
            Step::Request(r, wanted, returns) => {
                self.replicas[r].send(wanted, returns, time, epoch, without);
                self.execute(r);
            }
            Step::Send(r, wanted, returns) => self.replicas[r].send(wanted, returns, time, epoch, without),
            Step::Execute(r) => self.execute(r),
            Step::Answer(r) => self.replicas[r].receive(time, epoch, without),
            Step::LoseAnswer(r, wanted, returns) => {
                self.run(&Step::Request(r, wanted, returns));
                self.replicas[r].lose_answer();
            }
            Step::Spend(r, cost) => self.spend(r, cost, None),
            Step::Begin(r, cost) => {
                let replica = &mut self.replicas[r];
                let valid = replica.share.is_some_and(|share| replica.within_lease(&share, time, without));
                replica.begun = Some((cost, valid));
            }
            Step::Finish(r) => {
                if let Some((cost, valid)) = self.replicas[r].begun.take() {
                    self.spend(r, cost, Some(valid));
                }
            }
            Step::SetDatabaseClock(by) => {
                self.clock += by;
                self.advanced += by.max(0);
            }
            Step::SetWallClock(r, by) => self.replicas[r].wall_offset += by,
            Step::Kill(r) => self.replicas[r] = Replica::default(),
            Step::FailOver => self.begin_epoch(),
            Step::Backup => self.backup = self.row,
            Step::Restore => {
                self.row = self.backup;
                self.section += 1;
                self.begin_epoch();
            }
            Step::ChangePlan => {
                self.plan = 1 - self.plan;
                self.revision += 1;
                self.section += 1;
                self.change_time = time;
            }
        }
    }

    fn pass(&mut self) {
        self.advanced_by.push(self.advanced);
        self.time += 1;
        self.clock += 1;
        self.advanced += 1;
    }

    /// The replicas learn of it from the feed.
    fn begin_epoch(&mut self) {
        self.epoch += 1;
        if self.without != Some(Rule::NewEpochVoids) {
            self.replicas.iter_mut().for_each(|replica| replica.share = None);
        }
    }

    fn execute(&mut self, r: usize) {
        let Some(request) = self.replicas[r].request.take() else { return };
        // A statement to the last epoch's server fails.
        if request.epoch != self.epoch {
            return;
        }
        let returned = request.returned.filter(|(epoch, _)| *epoch == self.epoch);
        let grant = self.lease(returned.map(|(_, returned)| returned), request.wanted);
        self.row = Some(grant.allowance);
        self.replicas[r].answer = Some((request, grant));
    }

    fn lease(&self, returned: Option<Returned>, wanted: i64) -> Grant {
        let (requests, period, burst) = PLANS[self.plan];
        let (mut row, mut returned) = (self.row, returned);
        let mut rate = Rate::new(requests, period, burst).unwrap();
        let without = |rule| self.without == Some(rule);
        if without(Rule::RoundUp) {
            rate = Rate::new(1, period / requests, burst).unwrap();
        }
        if let Some(row) = row.as_ref().filter(|row| without(Rule::FullIsFull) && row.full_time < self.clock)
        {
            let idle = (self.clock - row.full_time) / rate.interval();
            rate = Rate::new(1, rate.interval(), burst + idle).unwrap();
        }
        if let (Some(row), Some(returned)) = (&mut row, &mut returned) {
            if without(Rule::SameRevision) {
                (row.revision, returned.revision) = (self.revision, self.revision);
            }
            if without(Rule::SameEra) {
                returned.era = row.era + i64::from(self.clock < row.lease_time);
            }
            if without(Rule::ReturnLessRefill) {
                returned.lease_time = self.clock;
            }
        }
        let grant = rate.lease(self.revision, row, self.clock, returned, wanted, 0);
        if without(Rule::GrantFits) { Grant { amount: wanted, ..grant } } else { grant }
    }

    fn spend(&mut self, r: usize, most: i64, valid_at_begin: Option<bool>) {
        let amount = self.replicas[r].spend(most, self.time, valid_at_begin, self.without);
        if self.time >= self.change_time + LEASE {
            let (time, plan, section) = (self.time, self.plan, self.section);
            self.spent.push(Spent { time, amount, plan, section });
        }
    }

    /// How far the database's clock had advanced at the end of a moment.
    fn advanced_by(&self, time: i64) -> i64 {
        let index = usize::try_from(time).ok();
        index.map_or(0, |index| self.advanced_by.get(index).copied().unwrap_or(self.advanced))
    }

    fn is_within_bounds(&self) -> bool {
        self.spent.iter().enumerate().all(|(index, first)| {
            let (requests, period, burst) = PLANS[first.plan];
            let same = self.spent[index..].iter().take_while(|spent| spent.section == first.section);
            same.scan(0, |sum, last| {
                *sum += last.amount;
                Some((*sum, last))
            })
            .all(|(sum, last)| {
                let refill = self.advanced_by(last.time) - self.advanced_by(first.time - LEASE);
                sum * period <= burst * period + requests * refill
            })
        })
    }
}

/// Runs one case; returns whether the rate was kept.
fn holds(without: Option<Rule>, random: &mut Random) -> bool {
    let mut world = World::new(without);
    let troubles = Troubles::any(random);
    for _ in 0..120 {
        world.run(&troubles.step(random));
    }
    world.is_within_bounds()
}

#[test]
fn a_rate_is_never_exceeded() {
    assert_eq!(first_failure(CASES, |random| holds(None, random)), None);
}

#[test]
fn without_any_one_rule_a_rate_is_exceeded() {
    let needless = needless(&RULES, CASES_WITHOUT_A_RULE, holds);
    assert_eq!(needless, []);
}

/// The model spends: a model whose replicas never do would pass.
#[test]
fn the_whole_burst_can_be_spent_at_once() {
    let mut world = World::new(None);
    for step in [Step::Lease(0, 3, false), Step::Lease(1, 7, false), Step::Spend(0, 3), Step::Spend(1, 7)] {
        world.run(&step);
    }
    assert_eq!(world.spent.iter().map(|spent| spent.amount).sum::<i64>(), PLANS[0].2);
}
