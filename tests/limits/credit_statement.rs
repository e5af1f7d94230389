//! The statement that debits and settles credits, compared with the rules in core.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use time::OffsetDateTime;
use time::macros::datetime;
use tokend::store::{CreditAsk, CreditLease, Epoch, Leased, Settlement, StoreError};
use tokend_core::limits::{Balance, CalendarPeriod, Refill, RefillMode};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::statements::{DEADLINE, Leasing, Random, key, plan_id};

const PERIODS: [(CalendarPeriod, &str); 5] = [
    (CalendarPeriod::Hour, "hour"),
    (CalendarPeriod::Day, "day"),
    (CalendarPeriod::Week, "week"),
    (CalendarPeriod::Month, "month"),
    (CalendarPeriod::Year, "year"),
];

/// One random case: a limit, what is stored, what is asked and what is settled.
struct Case {
    initial: i64,
    refill: Option<Refill>,
    stored: Option<Balance>,
    /// An earlier lease: its amount, its period and what is left of it.
    lease: Option<(i64, OffsetDateTime, i64)>,
    ask: CreditAsk,
}

impl Case {
    fn new(number: u64, random: &mut Random, now: OffsetDateTime) -> Self {
        let (initial, refill_amount) = (random.one_of(&[0, 5, 1 << 53]), random.one_of(&[1, 10, 1 << 53]));
        let mode = random.one_of(&[RefillMode::Replace, RefillMode::Add]);
        let period = random.one_of(&PERIODS).0;
        let refill = (random.within(0..4) > 0).then_some(Refill { amount: refill_amount, period, mode });
        let age =
            random.one_of(&[0, 1, 3_599, 86_400, 86_400 * 31, 86_400 * 366, 86_400 * 9_000, -86_400 * 40]);
        let before = now - time::Duration::seconds(age);
        // Also a start of another period, as after a change of the plan.
        let other_period = random.one_of(&PERIODS).0;
        let start = random.one_of(&[period, other_period]).start(before);
        let credits = random.one_of(&[0, 1, 7, 1_000, i64::MAX - 3]);
        let stored = (random.within(0..4) > 0).then_some(Balance { credits, period_start: start });
        let lease = stored.filter(|_| random.within(0..2) > 0).map(|stored| {
            let amount = random.within(1..20);
            let other = datetime!(2020-01-01 0:00 UTC);
            (amount, random.one_of(&[stored.period_start, stored.period_start, other]), random.within(-1..25))
        });
        let wanted = random.one_of(&[-1, 0, 1, 7, 8, 1_000_000, i64::from(u32::MAX)]);
        let ask = CreditAsk {
            key: key(plan_id(number), "u:user:x"),
            wanted,
            least: random.one_of(&[0, 0, 1, wanted, 9, i64::MAX]),
            lease_id: Uuid::from_u64_pair(2, number),
        };
        Self { initial, refill, stored, lease, ask }
    }

    /// Returns the SQL of its plan and rows.
    fn rows(&self, number: u64) -> String {
        let (id, initial) = (self.ask.key.plan_id, self.initial);
        let refill = self.refill.map_or("NULL, NULL, NULL".to_owned(), |refill| {
            let period = PERIODS.iter().find(|(period, _)| *period == refill.period).unwrap().1;
            format!("{}, '{period}', {}", refill.amount, refill.mode == RefillMode::Add)
        });
        let mut sql = format!(
            "INSERT INTO plans VALUES ('{id}', 'acme', 'plan-{number}', 3, 'token:x', now());
             INSERT INTO plan_limits VALUES ('{id}', 'calls', 0, 'user', 'credits', NULL, NULL, NULL, NULL, {initial}, {refill});"
        );
        let nanos = |time: OffsetDateTime| time.unix_timestamp();
        if let Some(Balance { credits, period_start }) = self.stored {
            let start = nanos(period_start);
            write!(sql, "INSERT INTO credit_balances VALUES ('{id}', 'calls', 'u:user:x', {credits}, to_timestamp({start}), 0, 0, 0, 0, now());").unwrap();
        }
        if let Some((amount, period_start, _)) = self.lease {
            let (lease, start) = (Uuid::from_u64_pair(3, number), nanos(period_start));
            write!(sql, "INSERT INTO credit_leases VALUES ('{lease}', '{id}', 'calls', 'u:user:x', {amount}, to_timestamp({start}), now());").unwrap();
        }
        sql
    }
}

#[tokio::test]
async fn the_statement_debits_as_the_rules_say() {
    const CASES: u64 = 2_000;
    let leasing = Leasing::new().await;
    let mut random = Random(2);
    let now = leasing.database.count("SELECT extract(epoch FROM clock_timestamp())::bigint").await;
    let now = OffsetDateTime::from_unix_timestamp(now).unwrap();
    let cases: Vec<_> = (0..CASES).map(|number| Case::new(number, &mut random, now)).collect();
    let rows: String = (0..CASES).zip(&cases).map(|(number, case)| case.rows(number)).collect();
    let mut session = leasing.database.connect().await;
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&mut session).await.unwrap();

    let mut connection = leasing.connect().await;
    for (number, case) in (0..).zip(&cases) {
        let settlement = |rest| Settlement { lease_id: Uuid::from_u64_pair(3, number), rest };
        let settlements: Vec<_> = case.lease.iter().map(|(_, _, rest)| settlement(*rest)).collect();
        let asks = std::slice::from_ref(&case.ask);
        let answers = connection.debit_credits(asks, &settlements, &leasing.epoch, DEADLINE).await.unwrap();
        let Leased::Granted(CreditLease { debit, time, revision, .. }) = answers[0] else {
            panic!("no answer")
        };
        let begun = case.stored.unwrap_or_else(|| Balance::initial(case.initial, case.refill, time));
        let settled = case
            .lease
            .map_or(begun, |(amount, period, rest)| begun.settle(case.refill, period, rest.min(amount)));
        let expected = settled.debit(case.refill, time, case.ask.wanted, case.ask.least);
        assert_eq!((debit, revision), (expected, 3), "{:?} of {:?} {:?}", case.ask, case.refill, case.stored);
    }
    let leased =
        "SELECT count(*) FROM credit_leases WHERE lease_id >= '00000000-0000-0003-0000-000000000000'";
    assert_eq!(leasing.database.count(leased).await, 0, "each was settled");
}

async fn balance(leasing: &Leasing) -> (i64, i64, i64, i64) {
    let sql = "SELECT balance, debited::bigint, returned::bigint, lost::bigint FROM credit_balances";
    let row: PgRow = sqlx::query(sql).fetch_one(&mut leasing.database.connect().await).await.unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

#[tokio::test]
async fn a_lease_is_settled_once_and_what_is_not_settled_is_lost() {
    let leasing = Leasing::new().await;
    let plan = leasing.plan(1, 1, "'credits', NULL, NULL, NULL, NULL, 100, NULL, NULL, NULL").await;
    let mut connection = leasing.connect().await;
    let lease = |number| Uuid::from_u64_pair(7, number);
    let ask = |number, wanted| CreditAsk { key: key(plan, "o:"), wanted, least: 0, lease_id: lease(number) };
    for number in [1, 2, 3] {
        connection.debit_credits(&[ask(number, 20)], &[], &leasing.epoch, DEADLINE).await.unwrap();
    }
    assert_eq!(balance(&leasing).await, (40, 60, 0, 0));

    // Twice, and once more with a lease whose answer never came.
    let rest = |number, rest| Settlement { lease_id: lease(number), rest };
    let settled = [rest(1, 15), rest(9, 100)];
    for _ in 0..2 {
        connection.debit_credits(&[], &settled, &leasing.epoch, DEADLINE).await.unwrap();
    }
    assert_eq!(balance(&leasing).await, (55, 60, 15, 0));
    connection.debit_credits(&[], &[rest(2, i64::MAX)], &leasing.epoch, DEADLINE).await.unwrap();
    assert_eq!(balance(&leasing).await, (75, 60, 35, 0), "at most what was leased");

    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert!(leasing.store().old_credit_leases(minutes(10)).await.unwrap().is_empty(), "they are young");
    leasing
        .database
        .execute("UPDATE credit_leases SET lease_time = lease_time - interval '11 minutes'")
        .await;
    // The fourth is as old by a clock that has jumped, but its replica lives and settles it.
    connection.debit_credits(&[ask(4, 20)], &[], &leasing.epoch, DEADLINE).await.unwrap();
    leasing
        .database
        .execute(format!(
            "UPDATE credit_leases SET lease_time = lease_time - interval '11 minutes' WHERE lease_id = '{}'",
            lease(4)
        ))
        .await;
    let mut old = leasing.store().old_credit_leases(minutes(10)).await.unwrap();
    old.sort_unstable();
    assert_eq!(old, [lease(3), lease(4)]);
    connection.debit_credits(&[], &[rest(4, 20)], &leasing.epoch, DEADLINE).await.unwrap();
    assert_eq!(leasing.store().lose_credit_leases(&old).await.unwrap(), (1, 20));
    assert_eq!(leasing.store().lose_credit_leases(&old).await.unwrap(), (0, 0), "once");
    assert_eq!(balance(&leasing).await, (75, 80, 55, 20));
    connection.debit_credits(&[], &[rest(3, 20)], &leasing.epoch, DEADLINE).await.unwrap();
    assert_eq!(balance(&leasing).await, (75, 80, 55, 20), "what was lost is not returned");
}

#[tokio::test]
async fn another_epoch_and_a_missing_limit_debit_and_settle_nothing() {
    let leasing = Leasing::new().await;
    let plan = leasing.plan(1, 1, "'credits', NULL, NULL, NULL, NULL, 100, NULL, NULL, NULL").await;
    let mut connection = leasing.connect().await;
    let lease = |number| Uuid::from_u64_pair(7, number);
    let ask =
        |plan, number| CreditAsk { key: key(plan, "o:"), wanted: 20, least: 1, lease_id: lease(number) };
    connection.debit_credits(&[ask(plan, 1)], &[], &leasing.epoch, DEADLINE).await.unwrap();
    let other = Epoch::parse("another".to_owned());
    let settled = [Settlement { lease_id: lease(1), rest: 15 }];
    for (asks, settled) in [(&[ask(plan, 2)][..], &settled[..]), (&[], &settled), (&[ask(plan, 3)], &[])] {
        let refused = connection.debit_credits(asks, settled, &other, DEADLINE).await;
        assert!(matches!(refused, Err(StoreError::OtherServer)), "{refused:?}");
        assert_eq!(balance(&leasing).await, (80, 20, 0, 0));
    }
    let asks = [ask(plan_id(2), 4), ask(plan, 5)];
    let answers = connection.debit_credits(&asks, &[], &leasing.epoch, DEADLINE).await.unwrap();
    assert_eq!(answers[0], Leased::NoLimit);
    assert!(matches!(&answers[1], Leased::Granted(lease) if lease.debit.amount == 20), "{answers:?}");
    assert_eq!(leasing.database.count("SELECT count(*) FROM credit_leases").await, 2);
}

/// Leases and returns as one replica, beside others.
async fn lease_often(leasing: Arc<Leasing>, plan: Uuid, replica: u64) -> i64 {
    let mut connection = leasing.connect().await;
    let (mut spent, mut last) = (0, None);
    for round in 0..40 {
        let lease_id = Uuid::from_u64_pair(replica, round);
        // Two of three are spent.
        let ask = CreditAsk { key: key(plan, "o:"), wanted: 3, least: 0, lease_id };
        let settled: Vec<_> = last.take().into_iter().collect();
        let answers = connection.debit_credits(&[ask], &settled, &leasing.epoch, DEADLINE).await.unwrap();
        if let Leased::Granted(CreditLease { debit, .. }) = answers[0] {
            let rest = i64::from(debit.amount == 3);
            spent += debit.amount - rest;
            last = Some(Settlement { lease_id, rest });
        }
    }
    connection
        .debit_credits(&[], &last.into_iter().collect::<Vec<_>>(), &leasing.epoch, DEADLINE)
        .await
        .unwrap();
    spent
}

#[tokio::test]
async fn debits_at_once_never_exceed_the_balance() {
    let leasing = Arc::new(Leasing::new().await);
    let plan = leasing.plan(1, 1, "'credits', NULL, NULL, NULL, NULL, 100, NULL, NULL, NULL").await;
    let replicas: JoinSet<i64> =
        (0..4).map(|number| lease_often(Arc::clone(&leasing), plan, number)).collect();
    let spent: i64 = replicas.join_all().await.into_iter().sum();
    let (rest, debited, returned, lost) = balance(&leasing).await;
    assert_eq!((rest, debited - returned, lost), (100 - spent, spent, 0));
    assert!(spent >= 98, "{spent}");
}
