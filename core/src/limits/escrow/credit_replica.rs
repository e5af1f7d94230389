//! The parts of the model of credits: a replica, and the rules that the model removes.

use time::OffsetDateTime;

/// How long a lease lasts, in the model's time.
pub(super) const LEASE: i64 = 2;

/// A rule that the model can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// What is spent was debited: a share is filled by the answer, not when it is asked for.
    DebitFirst,
    /// A debit is at most the balance.
    DebitFits,
    /// The share is emptied before what is left of it is returned.
    CloseBeforeReturn,
    /// A lease is settled once: by its row, which the settlement deletes.
    SettleOnce,
    /// A settlement returns at most its lease.
    AtMostTheLease,
    /// A debit that was given up is not spent, also if it is answered later.
    GivenUpIsNotSpent,
    /// A debit that was given up is settled.
    SettleGivenUp,
    /// A settlement whose answer was lost is repeated.
    RepeatSettlements,
    /// What is left of a period that was replaced ended with it.
    ReturnToItsPeriod,
    /// Refills happen only forward: not again after the clock was set back.
    RefillForward,
    /// A new epoch of the server ends all shares.
    NewEpochVoids,
    /// A lease has an end, also for a replica that was frozen and knows of no epoch.
    LeaseEnds,
    /// A failover keeps what was committed.
    DurableCommits,
    /// What seems to be old counts as lost only if it is not settled soon.
    LoseAfterASecondLook,
}

pub(super) const RULES: [Rule; 14] = [
    Rule::DebitFirst,
    Rule::DebitFits,
    Rule::CloseBeforeReturn,
    Rule::SettleOnce,
    Rule::AtMostTheLease,
    Rule::GivenUpIsNotSpent,
    Rule::SettleGivenUp,
    Rule::RepeatSettlements,
    Rule::ReturnToItsPeriod,
    Rule::RefillForward,
    Rule::NewEpochVoids,
    Rule::LeaseEnds,
    Rule::DurableCommits,
    Rule::LoseAfterASecondLook,
];

/// The number of a lease.
pub(super) type LeaseId = usize;

#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) id: LeaseId,
    pub(super) left: i64,
    pub(super) sent: i64,
}

/// A debit on its way to the database, and back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) id: LeaseId,
    pub(super) wanted: i64,
    pub(super) least: i64,
    pub(super) sent: i64,
    pub(super) epoch: u32,
    /// How much was debited, once it was executed.
    pub(super) amount: Option<i64>,
    pub(super) given_up: bool,
}

/// What is left of a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settlement {
    pub(super) id: LeaseId,
    pub(super) rest: i64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Replica {
    pub(super) share: Option<Share>,
    pub(super) request: Option<Request>,
    pub(super) settlements: Vec<Settlement>,
    /// It does nothing until it is thawed, and learns of no epoch.
    pub(super) frozen: bool,
    pub(super) epoch: u32,
}

impl Replica {
    /// Ends the lease; what is left is to be returned.
    pub(super) fn end(&mut self, without: Option<Rule>) {
        if let Some(share) = self.share {
            self.settlements.push(Settlement { id: share.id, rest: share.left });
            if without != Some(Rule::CloseBeforeReturn) {
                self.share = None;
            }
        }
    }

    /// Makes the statement of a debit.
    pub(super) fn send(&mut self, request: Request, without: Option<Rule>) {
        self.end(None);
        self.give_up(without);
        if without == Some(Rule::DebitFirst) {
            self.share = Some(Share { id: request.id, left: request.wanted, sent: request.sent });
        }
        self.request = Some(request);
    }

    /// Receives the answer, if the statement was executed.
    pub(super) fn receive(&mut self, without: Option<Rule>) {
        let Some(request @ Request { amount: Some(amount), .. }) = self.request else { return };
        self.request = None;
        let is_void = request.given_up && without != Some(Rule::GivenUpIsNotSpent);
        if amount > 0 && !is_void && request.epoch == self.epoch && without != Some(Rule::DebitFirst) {
            self.end(without);
            self.share = Some(Share { id: request.id, left: amount, sent: request.sent });
        }
    }

    /// Waits no longer for the answer: all of the lease is to be returned, whatever it was.
    pub(super) fn give_up(&mut self, without: Option<Rule>) {
        if let Some(request) = self.request.as_mut().filter(|request| !request.given_up) {
            request.given_up = true;
            if without != Some(Rule::SettleGivenUp) {
                self.settlements.push(Settlement { id: request.id, rest: i64::from(u32::MAX) });
            }
        }
    }

    /// Spends as much of `most` as the share has; returns of which lease.
    pub(super) fn spend(&mut self, most: i64, time: i64, without: Option<Rule>) -> Option<(LeaseId, i64)> {
        let share = self.share.as_mut()?;
        if time - share.sent >= LEASE && without != Some(Rule::LeaseEnds) {
            return None;
        }
        let amount = most.min(share.left);
        share.left -= amount;
        Some((share.id, amount))
    }

    /// Learns that the server is another one.
    pub(super) fn follow(&mut self, epoch: u32, without: Option<Rule>) {
        if self.epoch != epoch {
            self.epoch = epoch;
            if without != Some(Rule::NewEpochVoids) {
                self.end(None);
                self.give_up(None);
            }
        }
    }
}

/// A lease as the database has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseRow {
    pub(super) id: LeaseId,
    pub(super) amount: i64,
    pub(super) period_start: OffsetDateTime,
    pub(super) time: OffsetDateTime,
}

/// What became of a lease, as somebody counts who sees everything.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    pub(super) debited: i64,
    pub(super) answered: i64,
    pub(super) returned: i64,
    pub(super) lost: bool,
    /// Its holder was killed or frozen, or the server is another one: it may count as lost.
    pub(super) excused: bool,
    /// Since when a restored database knows nothing of it, or will count it as lost.
    pub(super) void_since: Option<i64>,
}
