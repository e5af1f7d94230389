//! Counts what replicas answered VALID, for each limit and subject, and judges it: a rate over every interval, credits in
//! total. Called by the clients and at the end of a fault test. Knows nothing of how replicas count.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// The longest lease of a share, as documented.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// A time since the start of a test in nanoseconds, by the monotonic clock of this machine.
pub(crate) type Nanos = i64;

/// Returns the time since `began`.
pub(crate) fn since(began: Instant) -> Nanos {
    i64::try_from(began.elapsed().as_nanos()).unwrap()
}

/// One answer VALID. What it spent was spent between its two times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    pub(crate) sent: Nanos,
    pub(crate) answered: Nanos,
    pub(crate) cost: u32,
}

/// A rate, and the interval in which it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) from: Nanos,
    pub(crate) to: Nanos,
    /// In which time one request refills, in nanoseconds, and how many fit.
    pub(crate) interval: i64,
    pub(crate) burst: i64,
}

/// What a limit counts.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A rate; the plan may change.
    Rate(Mutex<Vec<Rule>>),
    /// Credits.
    Credits,
}

/// One limit of one subject, as a client counts it.
#[derive(Debug)]
pub(crate) struct Account {
    /// The limit's name, and the subject as the database names it.
    pub(crate) limit: String,
    pub(crate) subject: String,
    pub(crate) kind: Kind,
    admissions: Mutex<Vec<Admission>>,
    /// The cost of all answers VALID, and of all calls whose answer was cut off.
    answered: AtomicI64,
    cut: AtomicI64,
}

impl Account {
    pub(crate) fn new(limit: &str, subject: &str, kind: Kind) -> Self {
        let (limit, subject) = (limit.to_owned(), subject.to_owned());
        let admissions = Mutex::default();
        Self { limit, subject, kind, admissions, answered: AtomicI64::new(0), cut: AtomicI64::new(0) }
    }

    /// Counts an answer VALID.
    pub(crate) fn admit(&self, admission: Admission) {
        self.answered.fetch_add(admission.cost.into(), Ordering::Relaxed);
        if matches!(self.kind, Kind::Rate(_)) {
            self.admissions.lock().unwrap().push(admission);
        }
    }

    /// Counts a call whose answer was cut off: it may have spent.
    pub(crate) fn cut_off(&self, cost: u32) {
        self.cut.fetch_add(cost.into(), Ordering::Relaxed);
    }

    pub(crate) fn answered(&self) -> i64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn cut(&self) -> i64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Ends a rule of the rate, and begins another later.
    pub(crate) fn change(&self, ended: Nanos, next: Rule) {
        let Kind::Rate(rules) = &self.kind else { panic!("{} is no rate", self.limit) };
        let mut rules = rules.lock().unwrap();
        rules.last_mut().unwrap().to = ended;
        rules.push(next);
    }

    /// Returns how many requests were admitted too many in the worst interval of each rule; at most 0: none.
    pub(crate) fn excess(&self) -> i64 {
        let Kind::Rate(rules) = &self.kind else { return 0 };
        let admissions = self.admissions.lock().unwrap();
        let worst = rules.lock().unwrap().iter().map(|rule| excess(*rule, &admissions)).max();
        worst.unwrap_or(0)
    }
}

/// Returns by how many requests the worst interval exceeds a rate: at most `burst + (length + lease) / interval` may be
/// spent from its start to its end. Only what was both asked and answered within an interval was surely spent in it.
pub(crate) fn excess(rule: Rule, admissions: &[Admission]) -> i64 {
    let within = |admission: &&Admission| admission.sent >= rule.from && admission.answered <= rule.to;
    let mut ends: Vec<Admission> = admissions.iter().filter(within).copied().collect();
    ends.sort_unstable_by_key(|admission| admission.answered);
    let mut tree = Tree::new(ends.iter().map(|admission| admission.answered));
    let mut starts: Vec<usize> = (0..ends.len()).collect();
    starts.sort_unstable_by_key(|at| std::cmp::Reverse(ends[*at].sent));
    let mut worst = i64::MIN;
    for at in starts {
        tree.add(at, i64::from(ends[at].cost) * rule.interval);
        // The most that was spent from here on, less what refilled until then.
        worst = worst.max(tree.best() + ends[at].sent);
    }
    let allowed = rule.burst * rule.interval + i64::try_from(LEASE.as_nanos()).unwrap();
    worst.saturating_sub(allowed).div_euclid(rule.interval)
        + i64::from(worst.saturating_sub(allowed).rem_euclid(rule.interval) > 0)
}

/// Sums of a row of numbers from its start; finds the largest of them that ends at a number that was added to.
struct Tree {
    leaves: usize,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    sum: i64,
    best: i64,
}

/// Less than each sum.
const NONE: i64 = i64::MIN / 4;

impl Tree {
    /// Creates a row whose sums are the times, negated.
    fn new(times: impl ExactSizeIterator<Item = Nanos>) -> Self {
        let leaves = times.len().next_power_of_two();
        let mut nodes = vec![Node { sum: 0, best: NONE }; 2 * leaves];
        let mut before = 0;
        for (node, time) in nodes[leaves..].iter_mut().zip(times) {
            node.sum = before - time;
            before = time;
        }
        let mut tree = Self { leaves, nodes };
        for at in (1..leaves).rev() {
            tree.join(at);
        }
        tree
    }

    fn add(&mut self, at: usize, amount: i64) {
        let mut at = at + self.leaves;
        self.nodes[at].sum += amount;
        self.nodes[at].best = self.nodes[at].sum;
        while at > 1 {
            at /= 2;
            self.join(at);
        }
    }

    fn join(&mut self, at: usize) {
        let (left, right) = (self.nodes[2 * at], self.nodes[2 * at + 1]);
        let best = left.best.max((left.sum + right.best).max(NONE));
        self.nodes[at] = Node { sum: left.sum + right.sum, best };
    }

    fn best(&self) -> i64 {
        self.nodes[1].best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten a second, three at once.
    const RULE: Rule = Rule { from: 0, to: i64::MAX, interval: 100_000_000, burst: 3 };

    fn at(millis: &[i64]) -> Vec<Admission> {
        let admission =
            |millis| Admission { sent: millis * 1_000_000, answered: millis * 1_000_000, cost: 1 };
        millis.iter().copied().map(admission).collect()
    }

    #[test]
    fn the_worst_interval_is_found() {
        // A burst and a lease's refill at once, and then the rate.
        let mut times = vec![5_000; 13];
        times.extend((1..50).map(|more| 5_000 + 100 * more));
        assert_eq!(excess(RULE, &at(&times)), 0);
        times.push(9_000);
        assert_eq!(excess(RULE, &at(&times)), 1);

        assert_eq!(excess(RULE, &at(&[5_000; 13])), 0);
        assert_eq!(excess(RULE, &at(&[5_000; 15])), 2);
        assert!(excess(RULE, &at(&[5_000, 7_000, 8_000])) < 0);
        let before = Rule { to: 4_999_999_999, ..RULE };
        assert!(excess(before, &at(&[5_000; 15])) < 0, "the rule has ended");
    }

    #[test]
    fn an_answer_counts_only_where_it_was_surely_spent() {
        let mut admissions = at(&[5_000; 13]);
        admissions.push(Admission { sent: 4_000_000_000, answered: 5_000_000_000, cost: 1 });
        assert_eq!(excess(RULE, &admissions), 0);
        admissions[13].sent = 4_950_000_000;
        assert_eq!(excess(RULE, &admissions), 1, "the interval is 50 ms longer");
    }

    #[test]
    fn it_agrees_with_the_definition() {
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i64::try_from((seed >> 33) % below).unwrap()
        };
        for _ in 0..200 {
            let admissions: Vec<_> = (0..30)
                .map(|_| {
                    let sent = random(3_000) * 1_000_000;
                    let answered = sent + random(300) * 1_000_000;
                    Admission { sent, answered, cost: u32::try_from(random(4)).unwrap() }
                })
                .collect();
            let mut worst = i64::MIN;
            for start in &admissions {
                for end in admissions.iter().filter(|end| end.answered >= start.sent) {
                    let inside = |one: &&Admission| one.sent >= start.sent && one.answered <= end.answered;
                    let spent: i64 = admissions.iter().filter(inside).map(|one| i64::from(one.cost)).sum();
                    if spent > 0 || inside(&start) {
                        let refilled = end.answered - start.sent + 1_000_000_000;
                        worst = worst.max(spent * RULE.interval - refilled - RULE.burst * RULE.interval);
                    }
                }
            }
            let expected = worst.div_euclid(RULE.interval) + i64::from(worst.rem_euclid(RULE.interval) > 0);
            assert_eq!(excess(RULE, &admissions), expected);
        }
    }
}
