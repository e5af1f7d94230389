//! The parts of the model of rates: a replica, and the rules that the model removes.

use crate::limits::rate::{Grant, Returned};

/// How long a lease lasts, in the model's time.
pub(super) const LEASE: i64 = 2;

/// A rule that the model can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Each spend is checked against the end of the lease when it happens, not when its request came.
    CheckAtSpend,
    /// A lease lasts from the sending of its statement, not from its answer.
    LeaseFromSending,
    /// Its age is by the boot clock too: the wall clock may be set back.
    BothClocks,
    /// An allowance holds no more than its burst.
    FullIsFull,
    /// A grant is at most what fits.
    GrantFits,
    /// The interval is rounded up.
    RoundUp,
    /// What was returned is no longer spent, also before the answer.
    CloseBeforeReturn,
    /// A return whose answer was lost is not repeated.
    ReturnOnce,
    /// A return is worth less by what has refilled since the lease.
    ReturnLessRefill,
    /// Nothing is returned over a clock that was set back.
    SameEra,
    /// Nothing is returned over a change of the plan.
    SameRevision,
    /// A new epoch of the server ends all shares.
    NewEpochVoids,
}

pub(super) const RULES: [Rule; 12] = [
    Rule::CheckAtSpend,
    Rule::LeaseFromSending,
    Rule::BothClocks,
    Rule::FullIsFull,
    Rule::GrantFits,
    Rule::RoundUp,
    Rule::CloseBeforeReturn,
    Rule::ReturnOnce,
    Rule::ReturnLessRefill,
    Rule::SameEra,
    Rule::SameRevision,
    Rule::NewEpochVoids,
];

/// A moment by the clocks of a replica.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moment {
    pub(super) boot: i64,
    pub(super) wall: i64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) left: i64,
    pub(super) sent: Moment,
    pub(super) epoch: u32,
    /// What it is returned as.
    pub(super) terms: Returned,
}

/// A statement on its way to the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) wanted: i64,
    pub(super) returned: Option<(u32, Returned)>,
    pub(super) sent: Moment,
    pub(super) epoch: u32,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Replica {
    /// How far its wall clock is from its boot clock.
    pub(super) wall_offset: i64,
    pub(super) share: Option<Share>,
    pub(super) request: Option<Request>,
    pub(super) answer: Option<(Request, Grant)>,
    /// The cost of a request that was begun, and whether the lease had not ended then.
    pub(super) begun: Option<(i64, bool)>,
    /// A return whose answer was lost.
    pub(super) unconfirmed: Option<(u32, Returned)>,
}

impl Replica {
    pub(super) fn moment(&self, time: i64) -> Moment {
        Moment { boot: time, wall: time + self.wall_offset }
    }

    pub(super) fn within_lease(&self, share: &Share, time: i64, without: Option<Rule>) -> bool {
        let now = self.moment(time);
        let (boot, wall) = (now.boot - share.sent.boot, now.wall - share.sent.wall);
        let age = if without == Some(Rule::BothClocks) { wall } else { boot.max(wall) };
        age < LEASE
    }

    /// Makes the statement of a lease.
    pub(super) fn send(&mut self, wanted: i64, returns: bool, time: i64, epoch: u32, without: Option<Rule>) {
        let repeated = self.unconfirmed.take().filter(|_| without == Some(Rule::ReturnOnce));
        let returned = self
            .share
            .filter(|_| returns)
            .map(|share| (share.epoch, Returned { amount: share.left, ..share.terms }));
        if returned.is_some() && without != Some(Rule::CloseBeforeReturn) {
            self.share = None;
        }
        let sent = self.moment(time);
        self.request = Some(Request { wanted, returned: repeated.or(returned), sent, epoch });
    }

    /// Receives the answer to the last statement.
    pub(super) fn receive(&mut self, time: i64, epoch: u32, without: Option<Rule>) {
        let Some((request, grant)) = self.answer.take() else { return };
        if request.epoch != epoch && without != Some(Rule::NewEpochVoids) {
            return;
        }
        let late = without == Some(Rule::LeaseFromSending);
        let terms = Returned {
            amount: grant.amount,
            lease_time: grant.allowance.lease_time,
            era: grant.allowance.era,
            revision: grant.allowance.revision,
        };
        self.share = Some(Share {
            left: grant.amount,
            sent: if late { self.moment(time) } else { request.sent },
            epoch: request.epoch,
            terms,
        });
    }

    pub(super) fn lose_answer(&mut self) {
        if let Some((request, _)) = self.answer.take() {
            self.unconfirmed = request.returned;
        }
    }

    /// Spends as much of `most` from the share as it can; returns how much was judged VALID.
    pub(super) fn spend(
        &mut self,
        most: i64,
        time: i64,
        valid_at_begin: Option<bool>,
        without: Option<Rule>,
    ) -> i64 {
        let Some(mut share) = self.share else { return 0 };
        let amount = most.min(share.left);
        share.left -= amount;
        self.share = Some(share);
        let valid = match valid_at_begin {
            Some(valid) if without == Some(Rule::CheckAtSpend) => valid,
            _ => self.within_lease(&share, time, without),
        };
        if valid { amount } else { 0 }
    }
}
