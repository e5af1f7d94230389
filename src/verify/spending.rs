//! What a valid token spends of its plan's limits. Called by the engine once everything else says VALID; the only file
//! here that knows how a request spends. Callers' own credentials never come here.

use time::OffsetDateTime;

use super::engine::Engine;
use super::read_point::LookupResult;
use super::read_queue::Lane;
use super::{Criteria, VerdictError, Verification};
use crate::clock::BootInstant;
use crate::domain::{Judgement, Record, Verdict};
use crate::limits::{LimitsError, Moment, Request, Spent};
use crate::secret::TokenId;
use crate::store::StoreError;

/// How often a request asks for a lease: others may take what was leased for it.
const ATTEMPTS: usize = 8;

impl From<LimitsError> for VerdictError {
    fn from(error: LimitsError) -> Self {
        match error {
            LimitsError::Store(error) => Self::Shared(error),
            LimitsError::Overloaded(error) => Self::Overloaded(error),
            LimitsError::NoPlan => Self::Store(StoreError::Corrupt { table: "plans", column: "name" }),
        }
    }
}

impl<'a> Criteria<'a> {
    fn request(&self) -> Request<'a> {
        Request { cost: self.cost, limit: self.limit }
    }
}

impl Verification {
    /// Returns the record of a valid token that has a plan.
    fn limited(&self) -> Option<Record> {
        let (record, _) = self.token.as_ref().filter(|(record, _)| record.is_limited())?;
        (self.verdict == Verdict::Valid).then(|| record.clone())
    }

    fn with(self, Spent { verdict, spending }: Spent) -> Self {
        let spending = (!spending.limits.is_empty()).then(|| Box::new(spending));
        Self { verdict, spending, ..self }
    }
}

impl Spent {
    fn judgement(&self) -> Judgement {
        Judgement { verdict: self.verdict, missing_scopes: Vec::new() }
    }
}

impl Engine {
    /// Spends what this replica has leased; `None`: the database has to be asked.
    pub(super) fn spend_now(
        &self,
        id: TokenId,
        answer: Verification,
        criteria: &Criteria<'_>,
        now: OffsetDateTime,
    ) -> Option<Verification> {
        let Some(record) = answer.limited() else { return Some(answer) };
        let moment = Moment { instant: BootInstant::now(), now, asked: None };
        let spent = self.limits.try_spend(id, &record, &criteria.request(), moment)?;
        self.count_spent(id, &record, (&spent, criteria), now);
        Some(answer.with(spent))
    }

    /// Spends, with a lease of the database if one is needed. A token that was found longer ago than the maximum
    /// staleness is found and judged again before.
    pub(super) async fn spend(
        &self,
        id: TokenId,
        mut answer: Verification,
        mut lookup: LookupResult,
        criteria: &Criteria<'_>,
    ) -> Result<(Verification, LookupResult), VerdictError> {
        let request = criteria.request();
        let mut found = BootInstant::now();
        let mut asked = None;
        for _ in 0..ATTEMPTS {
            let Some(record) = answer.limited() else { return Ok((answer, lookup)) };
            let moment = Moment { instant: BootInstant::now(), now: lookup.now, asked };
            if let Some(spent) = self.limits.try_spend(id, &record, &request, moment) {
                return Ok((self.spent(id, &record, &lookup, criteria, answer, spent), lookup));
            }
            asked = Some(BootInstant::now());
            let leased = self.limits.lease(id, &record, &request).await;
            if BootInstant::now().since(found) > self.freshness.bounds().max_staleness {
                found = BootInstant::now();
                lookup = self.find(id, Lane::Secret).await?;
                answer = self.conclude(id, &lookup, criteria);
            }
            let (Err(error), Some(record)) = (leased, answer.limited()) else { continue };
            let moment = Moment { instant: BootInstant::now(), now: lookup.now, asked };
            let spent = self.limits.spend_in_outage(id, &record, &request, moment).ok_or(error)?;
            return Ok((self.spent(id, &record, &lookup, criteria, answer, spent), lookup));
        }
        let Some(record) = answer.limited() else { return Ok((answer, lookup)) };
        let moment = Moment { instant: BootInstant::now(), now: lookup.now, asked };
        let refused = self.limits.refuse(id, &record, &request, moment)?;
        Ok((self.spent(id, &record, &lookup, criteria, answer, refused), lookup))
    }

    /// Counts the verdict of the limits. A stale cache answers only VALIDs.
    fn spent(
        &self,
        id: TokenId,
        record: &Record,
        lookup: &LookupResult,
        criteria: &Criteria<'_>,
        answer: Verification,
        spent: Spent,
    ) -> Verification {
        if spent.verdict == Verdict::Valid || !lookup.is_stale {
            self.count_spent(id, record, (&spent, criteria), lookup.now);
        }
        answer.with(spent)
    }

    /// Counts a verdict, unless the plan has no limit of the name that the request names: then there is none.
    fn count_spent(
        &self,
        id: TokenId,
        record: &Record,
        (spent, criteria): (&Spent, &Criteria<'_>),
        now: OffsetDateTime,
    ) {
        if criteria.limit.is_none() || !spent.spending.limits.is_empty() {
            self.usage.count(id, record, &spent.judgement(), criteria.client_ip, now);
        }
    }
}
