//! A random walk through the rules of filling: a database in which one token changes, replicas
//! whose statements take time, messages and answers that come late, connections to replicas that
//! lag. In every state, a cached record includes every change from before the published time.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use time::OffsetDateTime;
use tokend_core::boot_instant::BootInstant;
use tokend_core::domain::{TokenName, Verdict};
use tokend_core::fixtures;
use tokend_core::secret::Secret;

use super::record_cache::{PendingFill, RecordCache};
use crate::verification::{Verification, VerifiedToken};

/// Seconds per step; more than the clocks of two databases may differ by.
const STEP: i64 = 10;
const NOW: BootInstant = BootInstant { boot: 0, wall: 0 };

/// What happens next. Numbers are seconds into the past.
#[derive(Debug, Clone)]
enum Step {
    /// The token changes.
    Change,
    /// A statement of the watched replica, which began this long ago, ends, and its message is sent.
    Read(i64),
    /// The next message is received.
    Receive,
    /// The connection is lost, and leads to a replica whose last statement was this long ago.
    Reconnect(i64),
    /// A request is sent.
    Ask,
    /// A request in progress is answered, by a replica that lags this far.
    Answer(usize, i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let back = prop::sample::select(vec![0_i64, 3, 15, 25, 45]);
    let behind = 0_i64..130;
    let step = prop_oneof![
        2 => Just(Step::Change),
        6 => back.clone().prop_map(Step::Read),
        10 => Just(Step::Receive),
        2 => back.clone().prop_map(Step::Reconnect),
        3 => Just(Step::Ask),
        3 => (0_usize..2, behind).prop_map(|(which, behind)| Step::Answer(which, behind)),
    ];
    prop::collection::vec(step, 20..120)
}

/// A statement of the watched replica: when it began, which is the time it reports, and the time up
/// to which it saw changes.
#[derive(Debug, Clone, Copy)]
struct Statement {
    began: i64,
    saw: i64,
}

/// A message in transit: its statement, and whether the token has changed since the previous one.
#[derive(Debug)]
struct Message {
    statement: Statement,
    changed: bool,
}

struct Simulation<'a> {
    cache: &'a RecordCache,
    now: i64,
    changes: Vec<i64>,
    last: Statement,
    messages: VecDeque<Message>,
    /// The time up to which the last received message saw changes; `None`: none was received.
    position: Option<i64>,
    published: Option<i64>,
    pending: Vec<PendingFill<'a>>,
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
}

fn secret() -> Secret {
    fixtures::secret([7; 16], [9; 32])
}

impl<'a> Simulation<'a> {
    fn new(cache: &'a RecordCache) -> Self {
        let last = Statement { began: 0, saw: 0 };
        let messages = VecDeque::from([Message { statement: last, changed: false }]);
        let (changes, pending) = (Vec::new(), Vec::new());
        Self { cache, now: 0, changes, last, messages, position: None, published: None, pending }
    }

    fn changed_between(&self, after: i64, until: i64) -> bool {
        self.changes.iter().any(|change| (after + 1..=until).contains(change))
    }

    fn take(&mut self, step: &Step) {
        self.now += STEP;
        match *step {
            Step::Change => self.changes.push(self.now),
            Step::Read(back) => {
                // One statement after the other.
                let statement = Statement { began: (self.now - back).max(self.last.saw), saw: self.now };
                let changed = self.changed_between(self.last.saw, statement.saw);
                self.messages.push_back(Message { statement, changed });
                self.last = statement;
            }
            Step::Receive => self.receive(),
            Step::Reconnect(back) => self.reconnect(back),
            Step::Ask => self.pending.push(self.cache.begin()),
            Step::Answer(which, behind) => {
                if which < self.pending.len() {
                    let fill = self.pending.swap_remove(which);
                    self.answer(fill, self.now - behind);
                }
            }
        }
    }

    fn receive(&mut self) {
        let Some(Message { statement, changed }) = self.messages.pop_front() else { return };
        let ids = if changed { vec![secret().id()] } else { Vec::new() };
        self.cache.forget(&ids, at(statement.began), true);
        self.position = Some(statement.saw);
        self.published = Some(statement.began);
    }

    fn reconnect(&mut self, back: i64) {
        self.messages.clear();
        self.cache.connected();
        let saw = (self.now - back).max(0);
        let statement = Statement { began: (saw - back / 2).max(0), saw };
        // If nothing was received yet, nothing is cached, and the watch begins now.
        let changed = self.position.is_some_and(|position| self.changed_between(position, saw));
        self.messages.push_back(Message { statement, changed });
        self.last = statement;
    }

    fn answer(&self, fill: PendingFill<'_>, as_of: i64) {
        let known = self.changes.iter().filter(|change| **change < as_of).count();
        let mut token = fixtures::token(&[]);
        token.name = TokenName::parse(&known.to_string()).unwrap();
        let answer = Verification {
            verdict: Verdict::Valid,
            token: Some(VerifiedToken::new(token)),
            missing_scopes: Vec::new(),
            as_of: Some(at(as_of)),
            limits: Vec::new(),
            retry_after: None,
        };
        fill.end(&secret(), &answer, NOW);
    }

    /// Returns how many changes the cached record includes, if there is one.
    fn known(&self) -> Option<usize> {
        let entry = self.cache.get(secret().id(), NOW)?;
        Some(entry.token.name.as_str().parse().unwrap())
    }

    fn promised(&self) -> usize {
        let published = self.published.unwrap_or(i64::MIN);
        self.changes.iter().filter(|change| **change < published).count()
    }
}

fn empty() -> RecordCache {
    RecordCache::new(64 << 10, Duration::from_mins(10))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn cached_records_include_every_change_before_the_published_time(steps in steps()) {
        let cache = empty();
        let mut simulation = Simulation::new(&cache);
        for step in &steps {
            simulation.take(step);
            if let Some(known) = simulation.known() {
                prop_assert!(known >= simulation.promised(), "{known} < {} after {step:?}", simulation.promised());
            }
        }
    }
}

#[test]
fn the_simulation_caches_records() {
    let cache = empty();
    let mut simulation = Simulation::new(&cache);
    for _ in 0..4 {
        simulation.take(&Step::Read(0));
        simulation.take(&Step::Receive);
    }
    simulation.take(&Step::Change);
    for _ in 0..4 {
        simulation.take(&Step::Read(0));
        simulation.take(&Step::Receive);
    }
    simulation.take(&Step::Ask);
    simulation.take(&Step::Answer(0, 0));
    assert_eq!(simulation.known(), Some(1));
}
