//! The model of credits. Of each lease, what was answered and returned is at most what was debited, and all of it at rest
//! unless its holder ended; what was debited in a period is at most what that period has. Statements are late or lost;
//! replicas freeze and are killed; the database's clock jumps, it fails over and is restored.

use super::credit_replica::{RULES, Replica, Rule};
use super::credit_world::{INITIAL, MINUTES, World};
use super::{Random, first_failure, needless};
use crate::limits::calendar::CalendarPeriod;
use crate::limits::credits::{Refill, RefillMode};

/// How many cases are run with all rules, and at most without one.
const CASES: u64 = 20_000;
const CASES_WITHOUT_A_RULE: u64 = 200_000;

#[derive(Debug, Clone, Copy)]
enum Step {
    Pass(i64),
    /// Sends, executes and answers.
    Lease(usize, i64, i64),
    Send(usize, i64, i64),
    Execute(usize),
    Answer(usize),
    GiveUp(usize),
    Spend(usize, i64),
    End(usize),
    Settle(usize),
    /// The answer is lost, or the statement is.
    SettleUnanswered(usize),
    SettleInVain(usize),
    Freeze(usize),
    Thaw(usize),
    Kill(usize),
    SetDatabaseClock(i64),
    FailOver,
    Backup,
    Restore,
    Purge,
}

fn step(random: &mut Random, troubles: [i64; 3]) -> Step {
    let replica = usize::try_from(random.within(0..3)).unwrap();
    let (wanted, least, cost) = (random.within(1..9), random.within(0..4), random.within(1..5));
    let index = usize::try_from(random.within(0..13)).unwrap();
    let Some(trouble) = troubles.get(index) else {
        return match index {
            3 => Step::Pass(1),
            4 => Step::Pass(random.within(1..8)),
            5..8 => Step::Lease(replica, wanted, least),
            8 => Step::End(replica),
            9 => Step::Settle(replica),
            _ => Step::Spend(replica, cost),
        };
    };
    match (trouble, random.within(0..3)) {
        (0, 0) => Step::Freeze(replica),
        (0, _) => Step::Thaw(replica),
        (1 | 2, 0) => Step::Send(replica, wanted, least),
        (1 | 2, 1) => Step::Execute(replica),
        (1, _) => Step::Answer(replica),
        (2, _) => Step::GiveUp(replica),
        (3, 0) => Step::SettleInVain(replica),
        (3, _) => Step::SettleUnanswered(replica),
        (4, _) => Step::SetDatabaseClock(random.within(-12..13)),
        (5, 0) => Step::Kill(replica),
        (5, _) | (4.., 2) => Step::Purge,
        (6, _) => Step::FailOver,
        (7, 0) => Step::Backup,
        (7, _) => Step::Restore,
        _ => Step::Pass(random.within(1..8)),
    }
}

impl World {
    fn run(&mut self, step: Step) {
        let without = self.without;
        match step {
            Step::Pass(by) => self.pass(by),
            Step::Lease(r, wanted, least) => {
                for step in [Step::Send(r, wanted, least), Step::Execute(r), Step::Answer(r)] {
                    self.run(step);
                }
            }
            // The network executes what a frozen replica has sent.
            Step::Execute(r) => self.execute(r),
            Step::Freeze(r) => self.replicas[r].frozen = true,
            Step::Thaw(r) => self.replicas[r].frozen = false,
            Step::Kill(r) => {
                self.excuse(r);
                self.replicas[r] = Replica { epoch: self.epoch, ..Replica::default() };
            }
            Step::SetDatabaseClock(by) => self.clock += time::Duration::minutes(by * MINUTES),
            Step::FailOver => self.fail_over(),
            Step::Backup => self.backup = self.database.clone(),
            Step::Restore => self.restore(),
            Step::Purge => self.purge(),
            Step::Send(r, ..)
            | Step::Answer(r)
            | Step::GiveUp(r)
            | Step::Spend(r, _)
            | Step::End(r)
            | Step::Settle(r)
            | Step::SettleUnanswered(r)
            | Step::SettleInVain(r)
                if self.replicas[r].frozen => {}
            Step::Send(r, wanted, least) => self.send(r, wanted, least),
            Step::Answer(r) => self.replicas[r].receive(without),
            Step::GiveUp(r) => self.replicas[r].give_up(without),
            Step::Spend(r, most) => self.spend(r, most),
            Step::End(r) => self.replicas[r].end(without),
            Step::Settle(r) => {
                self.settle(r);
                self.replicas[r].settlements.clear();
            }
            Step::SettleUnanswered(r) => {
                self.settle(r);
                self.forget_settlements(r);
            }
            Step::SettleInVain(r) => self.forget_settlements(r),
        }
    }
}

/// Runs one case; returns whether all of it is accounted for.
fn holds(without: Option<Rule>, random: &mut Random) -> bool {
    let mode = [RefillMode::Replace, RefillMode::Add][usize::try_from(random.within(0..2)).unwrap()];
    let refill = Refill { amount: random.within(INITIAL..INITIAL + 4), period: CalendarPeriod::Hour, mode };
    let mut world = World::new(without, (random.within(0..3) > 0).then_some(refill));
    // Few kinds of trouble at once, since one often ends what another began.
    let (often, seldom) = (random.within(0..9), random.within(0..9));
    for _ in 0..80 {
        let before = world.database.clone();
        world.run(step(random, [often, often, seldom]));
        world.late = before;
        if !(world.is_within_debits() && world.is_within_periods() && world.is_balanced()) {
            return false;
        }
    }
    world.come_to_rest();
    world.is_within_debits() && world.is_within_periods() && world.is_balanced() && world.is_accounted_for()
}

#[test]
fn what_was_debited_is_what_was_answered_returned_and_lost() {
    assert_eq!(first_failure(CASES, |random| holds(None, random)), None);
}

#[test]
fn without_any_one_rule_credits_are_spent_twice_or_vanish() {
    let needless = needless(&RULES, CASES_WITHOUT_A_RULE, holds);
    assert_eq!(needless, []);
}

/// The model spends and returns: a model that never does would pass.
#[test]
fn the_whole_balance_can_be_spent_and_what_is_left_is_returned() {
    let mut world = World::new(None, None);
    for step in [Step::Lease(0, 3, 1), Step::Lease(1, 100, 1), Step::Spend(0, 3), Step::Spend(1, 4)] {
        world.run(step);
    }
    world.come_to_rest();
    assert_eq!(world.accounts.iter().map(|account| account.answered).sum::<i64>(), 7);
    assert_eq!(world.accounts.iter().map(|account| account.returned).sum::<i64>(), INITIAL - 7);
    assert_eq!(world.database.balance.unwrap().credits, INITIAL - 7);
}
