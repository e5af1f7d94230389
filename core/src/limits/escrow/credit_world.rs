//! The parts of the model of credits: the database, and what happens to it and to the replicas.

use time::OffsetDateTime;
use time::macros::datetime;

use super::credit_replica::{Account, LEASE, LeaseId, LeaseRow, Replica, Request, Rule, Settlement};
use crate::limits::credits::{Balance, Refill, RefillMode};

pub(super) const INITIAL: i64 = 12;
pub(super) const REPLICAS: usize = 3;

/// How old a lease is that counts as lost, by the database's clock in minutes; and a unit of the model's time. An hour is
/// a period.
const OLD: i64 = 60;
pub(super) const MINUTES: i64 = 10;

/// What is stored.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) balance: Option<Balance>,
    pub(super) leases: Vec<LeaseRow>,
    /// What was debited and not returned to the balance.
    pub(super) held: i64,
    /// The first period, and the last that was refilled for.
    pub(super) began: OffsetDateTime,
    pub(super) latest: OffsetDateTime,
}

pub(super) struct World {
    pub(super) without: Option<Rule>,
    pub(super) refill: Option<Refill>,
    pub(super) time: i64,
    pub(super) clock: OffsetDateTime,
    pub(super) database: Database,
    pub(super) backup: Database,
    /// What a server that was not waited for has.
    pub(super) late: Database,
    pub(super) epoch: u32,
    pub(super) replicas: [Replica; REPLICAS],
    pub(super) accounts: Vec<Account>,
    /// Of each period since the database was last restored: what was debited in it and not returned.
    pub(super) periods: Vec<(OffsetDateTime, i64)>,
    pub(super) broken: bool,
}

impl World {
    pub(super) fn new(without: Option<Rule>, refill: Option<Refill>) -> Self {
        let clock = datetime!(2028-02-28 23:05 UTC);
        let empty = Database { balance: None, leases: Vec::new(), held: 0, began: clock, latest: clock };
        Self {
            without,
            refill,
            time: 0,
            clock,
            database: empty.clone(),
            backup: empty.clone(),
            late: empty,
            epoch: 0,
            replicas: Default::default(),
            accounts: Vec::new(),
            periods: Vec::new(),
            broken: false,
        }
    }

    pub(super) fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    pub(super) fn pass(&mut self, by: i64) {
        self.time += by;
        self.clock += time::Duration::minutes(by * MINUTES);
    }

    pub(super) fn send(&mut self, r: usize, wanted: i64, least: i64) {
        // One statement at a time: the last one has been executed, or never will be.
        if self.replicas[r].request.is_some_and(|request| request.amount.is_none()) {
            return;
        }
        let (id, sent, epoch) = (self.accounts.len(), self.time, self.replicas[r].epoch);
        self.accounts.push(Account::default());
        let request = Request { id, wanted, least, sent, epoch, amount: None, given_up: false };
        self.replicas[r].send(request, self.without);
    }

    pub(super) fn execute(&mut self, r: usize) {
        let Some(request) = self.replicas[r].request.filter(|request| request.amount.is_none()) else {
            return;
        };
        // A statement to the last epoch's server fails: nothing was debited.
        if request.epoch != self.epoch {
            self.replicas[r].request = None;
            if !self.replicas[r].frozen {
                self.replicas[r].follow(self.epoch, self.without);
            }
            return;
        }
        let balance = self.refilled();
        let mut debit = balance.debit(self.refill, self.clock, request.wanted, request.least);
        if !self.has(Rule::DebitFits) {
            debit.balance.credits -= request.wanted - debit.amount;
            debit.amount = request.wanted;
        }
        self.database.balance = Some(debit.balance);
        let (amount, period_start) = (debit.amount, debit.balance.period_start);
        if amount > 0 {
            self.database.held += amount;
            self.database.leases.push(LeaseRow { id: request.id, amount, period_start, time: self.clock });
            self.count_in(period_start, amount);
        }
        let account = &mut self.accounts[request.id];
        account.debited = amount;
        // Its settlement may have come before it.
        account.excused |= request.given_up;
        if let Some(request) = &mut self.replicas[r].request {
            request.amount = Some(amount);
        }
    }

    /// Returns the balance with its refills.
    pub(super) fn refilled(&mut self) -> Balance {
        let mut balance = self.database.balance.unwrap_or_else(|| {
            let balance = Balance::initial(INITIAL, self.refill, self.clock);
            (self.database.began, self.database.latest) = (balance.period_start, balance.period_start);
            balance
        });
        if let Some(refill) = self.refill.filter(|_| !self.has(Rule::RefillForward)) {
            balance.period_start = balance.period_start.min(refill.period.start(self.clock));
        }
        let refilled = balance.refilled(self.refill, self.clock);
        self.database.latest = self.database.latest.max(refilled.period_start);
        self.database.balance = Some(refilled);
        refilled
    }

    pub(super) fn count_in(&mut self, period_start: OffsetDateTime, amount: i64) {
        match self.periods.iter_mut().find(|(start, _)| *start == period_start) {
            Some((_, debited)) => *debited += amount,
            None => self.periods.push((period_start, amount)),
        }
    }

    pub(super) fn settle(&mut self, r: usize) {
        self.replicas[r].follow(self.epoch, self.without);
        let settlements = self.replicas[r].settlements.clone();
        for settlement in settlements {
            self.settle_one(settlement);
        }
    }

    /// No answer comes.
    pub(super) fn forget_settlements(&mut self, r: usize) {
        if !self.has(Rule::RepeatSettlements) {
            self.replicas[r].settlements.clear();
        }
    }

    pub(super) fn settle_one(&mut self, Settlement { id, rest }: Settlement) {
        let row = self.database.leases.iter().find(|row| row.id == id).copied();
        // Without its row, the amount that somebody remembers.
        let settled = (!self.has(Rule::SettleOnce) && row.is_none()).then(|| LeaseRow {
            id,
            amount: self.accounts[id].debited,
            period_start: self.clock,
            time: self.clock,
        });
        let Some(row) = row.or(settled) else { return };
        self.database.leases.retain(|row| row.id != id);
        let rest = if self.has(Rule::AtMostTheLease) { rest.min(row.amount) } else { rest };
        self.accounts[id].returned += rest;
        let Some(balance) = self.database.balance else { return };
        let period = if self.has(Rule::ReturnToItsPeriod) { row.period_start } else { balance.period_start };
        let settled = balance.settle(self.refill, period, rest);
        // What ended with its period was added to no balance.
        let counted = settled.credits - balance.credits;
        self.database.held -= counted;
        self.database.balance = Some(settled);
        if counted > 0 {
            self.count_in(row.period_start, -rest);
        }
    }

    pub(super) fn spend(&mut self, r: usize, most: i64) {
        if let Some((id, amount)) = self.replicas[r].spend(most, self.time, self.without) {
            let account = &mut self.accounts[id];
            account.answered += amount;
            let has_followed = self.replicas[r].epoch == self.epoch;
            let is_void = account.void_since.is_some_and(|since| has_followed || self.time >= since + LEASE);
            self.broken |= is_void && amount > 0;
        }
    }
}

impl World {
    /// What this replica holds may count as lost from now on.
    pub(super) fn excuse(&mut self, r: usize) {
        let replica = &self.replicas[r];
        let held = replica.share.iter().map(|share| share.id);
        let asked = replica.request.iter().map(|request| request.id);
        let unsettled = replica.settlements.iter().map(|settlement| settlement.id);
        for id in held.chain(asked).chain(unsettled).collect::<Vec<LeaseId>>() {
            self.accounts[id].excused = true;
        }
    }

    /// Another server begins with what was committed, and every replica that is not frozen learns of it.
    pub(super) fn begin_epoch(&mut self) {
        self.epoch += 1;
        let (epoch, without) = (self.epoch, self.without);
        for replica in self.replicas.iter_mut().filter(|replica| !replica.frozen) {
            replica.follow(epoch, without);
        }
    }

    pub(super) fn fail_over(&mut self) {
        if !self.has(Rule::DurableCommits) {
            let kept = |id| self.late.leases.iter().any(|row| row.id == id);
            for row in self.database.leases.iter().filter(|row| !kept(row.id)) {
                self.accounts[row.id].debited = 0;
            }
            self.database = self.late.clone();
        }
        self.begin_epoch();
    }

    /// The balances are those of the backup, and what was leased is void: once its replica knows, or a lease later.
    pub(super) fn restore(&mut self) {
        self.database = self.backup.clone();
        for account in &mut self.accounts {
            account.void_since.get_or_insert(self.time);
            account.excused = true;
        }
        self.periods.clear();
        let rows: Vec<_> = self.database.leases.iter().map(|row| (row.period_start, row.amount)).collect();
        for (start, amount) in rows {
            self.count_in(start, amount);
        }
        self.begin_epoch();
    }

    /// Looks for old leases, and counts them as lost that living replicas do not settle soon.
    pub(super) fn purge(&mut self) {
        let old_before = self.clock - time::Duration::minutes(OLD);
        let is_old = |row: &&LeaseRow| row.time < old_before;
        let old: Vec<LeaseId> = self.database.leases.iter().filter(is_old).map(|row| row.id).collect();
        if self.has(Rule::LoseAfterASecondLook) {
            self.pass(LEASE);
            for r in 0..REPLICAS {
                self.settle_all(r);
            }
        }
        for id in old {
            let Some(at) = self.database.leases.iter().position(|row| row.id == id) else { continue };
            self.database.leases.remove(at);
            self.accounts[id].lost = true;
        }
    }

    /// What a living replica does within some seconds.
    pub(super) fn settle_all(&mut self, r: usize) {
        if self.replicas[r].frozen {
            self.excuse(r);
            return;
        }
        self.replicas[r].follow(self.epoch, self.without);
        self.replicas[r].give_up(self.without);
        self.replicas[r].end(None);
        self.settle(r);
        self.replicas[r].settlements.clear();
    }

    /// Ends everything, so that only what nobody settles is left; and counts that as lost.
    pub(super) fn come_to_rest(&mut self) {
        for r in 0..REPLICAS {
            self.replicas[r].frozen = false;
            self.settle_all(r);
        }
        self.clock += time::Duration::minutes(100 * OLD);
        self.purge();
    }

    /// Returns whether of no lease more was used than debited, and nothing of a void one.
    pub(super) fn is_within_debits(&self) -> bool {
        let kept = |account: &Account| {
            account.void_since.is_some() || account.answered + account.returned <= account.debited
        };
        !self.broken && self.accounts.iter().all(kept)
    }

    /// Returns whether nothing was debited in a period that it does not have.
    pub(super) fn is_within_periods(&self) -> bool {
        // At least as much as it has initially.
        let Some(Refill { amount: most, mode: RefillMode::Replace, .. }) = self.refill else {
            return self.database.balance.is_none_or(|balance| balance.credits >= 0);
        };
        self.periods.iter().all(|(_, debited)| *debited <= most)
    }

    /// Returns whether each lease was used up, unless its holder ended.
    pub(super) fn is_accounted_for(&self) -> bool {
        let used = |account: &Account| {
            account.excused || !account.lost && account.answered + account.returned == account.debited
        };
        self.accounts.iter().all(used)
    }

    /// Returns whether a balance to which periods add is what was added and not debited.
    pub(super) fn is_balanced(&self) -> bool {
        let Some(balance) = self.database.balance else { return true };
        let Database { held, began, latest, .. } = self.database;
        let added = match self.refill {
            None => INITIAL,
            Some(Refill { amount, mode: RefillMode::Add, period }) => {
                INITIAL + amount * period.begun_between(began, latest)
            }
            // `is_within_periods` judges it.
            Some(_) => return true,
        };
        balance.credits + held == added
    }
}
