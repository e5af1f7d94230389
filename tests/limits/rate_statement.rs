//! The statement that leases rates, compared with the rules in core, and what two of them do at once.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::Row as _;
use tokend::store::{Epoch, Leased, RateAsk, RateLease, StoreError};
use tokend_core::limits::{Allowance, Rate, Returned};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::statements::{DEADLINE, Leasing, Random, key, plan_id};

const SECOND: i64 = 1_000_000_000;

/// One random case: a limit, what is stored, and what is asked.
struct Case {
    rate: Rate,
    revision: i64,
    stored: Option<Allowance>,
    ask: RateAsk,
}

/// Creates a case around this time of the database.
fn case(number: u64, random: &mut Random, now: i64, plans: &mut String, limits: &mut String) -> Case {
    let (requests, seconds) =
        (random.one_of(&[1, 3, 10, 1_000, 1 << 40]), random.one_of(&[1, 60, 86_400, 2_678_400]));
    let burst = random.one_of(&[1, 2, 7, 100, 1 << 20]);
    let rate = Rate::new(requests, seconds * SECOND, burst).unwrap_or(Rate::new(1, SECOND, 1).unwrap());
    let (requests, seconds, burst) = if Rate::new(requests, seconds * SECOND, burst).is_some() {
        (requests, seconds, burst)
    } else {
        (1, 1, 1)
    };
    let revision = random.within(1..4);
    let id = plan_id(number);
    write!(plans, "('{id}', 'acme', 'plan-{number}', {revision}, 'token:x', now()),").unwrap();
    write!(limits, "('{id}', 'calls', 0, 'token', 'rate', {requests}, {seconds}, {burst}, false),").unwrap();
    let around =
        |random: &mut Random, by: i64| now + random.one_of(&[-2 * by, -by, -by / 3, 0, by / 3, by, 2 * by]);
    let full = rate.refill_time();
    let other_revision = random.within(1..4);
    let last_revision = random.one_of(&[revision, revision, other_revision]);
    let stored = (random.within(0..4) > 0).then(|| Allowance {
        full_time: around(random, full),
        // Rarely after now: then the clock was set back.
        lease_time: random.one_of(&[
            now - SECOND,
            now - 60 * SECOND,
            now - SECOND / 100,
            now + 3_600 * SECOND,
        ]),
        era: random.within(0..3),
        revision: last_revision,
    });
    let era = stored.map_or(0, |stored| stored.era);
    let returned = (random.within(0..3) > 0).then(|| Returned {
        amount: random.within(0..burst.min(1 << 30) + 1),
        lease_time: stored.map_or(now - SECOND, |stored| stored.lease_time),
        era: era + random.one_of(&[0, 0, 1]),
        revision: random.one_of(&[revision, revision, other_revision]),
    });
    let wanted = random.one_of(&[0, 1, burst / 2, burst, burst + 1, -1]);
    let least = random.one_of(&[0, 0, 1, wanted, burst / 3, -1, i64::MAX]);
    Case {
        rate,
        revision,
        stored,
        ask: RateAsk { key: key(id, &format!("t:{number}")), wanted, least, returned },
    }
}

#[tokio::test]
async fn the_statement_leases_as_the_rules_say() {
    const CASES: u64 = 4_000;
    let leasing = Leasing::new().await;
    let mut random = Random(1);
    let now = leasing.database.count("SELECT (extract(epoch FROM clock_timestamp()) * 1e9)::bigint").await;
    let (mut plans, mut limits) = (String::new(), String::new());
    let cases: Vec<_> =
        (0..CASES).map(|number| case(number, &mut random, now, &mut plans, &mut limits)).collect();
    let rows = |values: &str| values.trim_end_matches(',').to_owned();
    leasing.database.execute(format!("INSERT INTO plans VALUES {}", rows(&plans))).await;
    leasing.database.execute(format!("INSERT INTO plan_limits VALUES {}", rows(&limits))).await;
    let mut stored = String::new();
    for case in &cases {
        let Some(Allowance { full_time, lease_time, era, revision }) = case.stored else { continue };
        let (plan_id, subject) = (case.ask.key.plan_id, &case.ask.key.subject);
        write!(
            stored,
            "('{plan_id}', 'calls', '{subject}', {full_time}, {lease_time}, 7, {era}, {revision}),"
        )
        .unwrap();
    }
    leasing.database.execute(format!("INSERT INTO rate_allowances VALUES {}", rows(&stored))).await;

    let mut connection = leasing.connect().await;
    let mut returns = 0;
    for cases in cases.chunks(500) {
        let asks: Vec<_> = cases.iter().map(|case| case.ask.clone()).collect();
        let answers = connection.lease_rates(&asks, &leasing.epoch, DEADLINE).await.unwrap();
        for (case, answer) in cases.iter().zip(answers) {
            let Leased::Granted(RateLease { grant, last_grant_time }) = answer else {
                panic!("{:?}", case.ask)
            };
            let (now, ask) = (grant.allowance.lease_time, &case.ask);
            let expected =
                case.rate.lease(case.revision, case.stored, now, ask.returned, ask.wanted, ask.least);
            assert_eq!(grant, expected, "{ask:?} of {:?} and {:?}", case.rate, case.stored);
            assert_eq!(last_grant_time, if case.stored.is_some() { 7 } else { now });
            returns += u32::from(
                expected != case.rate.lease(case.revision, case.stored, now, None, ask.wanted, ask.least),
            );
        }
    }
    assert!(returns > 100, "only {returns} cases returned something");
    // What is stored is what was answered: a second statement begins there.
    let rows = "SELECT full_time, lease_time, era, revision FROM rate_allowances WHERE plan_id = $1";
    let mut session = leasing.database.connect().await;
    for case in cases.iter().take(50) {
        let row = sqlx::query(rows).bind(case.ask.key.plan_id).fetch_one(&mut session).await.unwrap();
        let now = row.get(1);
        let expected = case
            .rate
            .lease(case.revision, case.stored, now, case.ask.returned, case.ask.wanted, case.ask.least)
            .allowance;
        let Allowance { full_time, era, revision, .. } = expected;
        assert_eq!((row.get(0), row.get(2), row.get(3)), (full_time, era, revision));
    }
}

/// Leases and returns as one replica, beside others.
async fn lease_often(leasing: Arc<Leasing>, plan: Uuid, replica: usize) -> [i64; 3] {
    let keys = ["t:1", "t:2", "t:3"].map(|subject| key(plan, subject));
    let mut connection = leasing.connect().await;
    let mut leased = [0; 3];
    for round in 0..60 {
        // In any order: the statement orders them.
        let mut order = [0, 1, 2];
        order.rotate_left((replica + round) % 3);
        let ask = |at: usize| RateAsk { key: keys[at].clone(), wanted: 1, least: 1, returned: None };
        let answers = connection.lease_rates(&order.map(ask), &leasing.epoch, DEADLINE).await.unwrap();
        for (at, answer) in order.into_iter().zip(answers) {
            match answer {
                Leased::Granted(lease) => leased[at] += lease.grant.amount,
                Leased::AskAgain => {}
                Leased::NoLimit => panic!("there is such a limit"),
            }
        }
    }
    leased
}

#[tokio::test]
async fn statements_at_once_lease_no_more_than_there_is() {
    let leasing = Arc::new(Leasing::new().await);
    // One request in 31 days: nothing refills meanwhile.
    let plan = leasing.plan(1, 1, "'rate', 1, 2678400, 50, false, NULL, NULL, NULL, NULL").await;
    let replicas: JoinSet<[i64; 3]> =
        (0..4).map(|number| lease_often(Arc::clone(&leasing), plan, number)).collect();
    let leased = replicas.join_all().await;
    for at in 0..3 {
        assert_eq!(leased.iter().map(|leased| leased[at]).sum::<i64>(), 50);
    }
}

#[tokio::test]
async fn another_epoch_and_a_missing_limit_lease_nothing() {
    let leasing = Leasing::new().await;
    let plan = leasing.plan(1, 1, "'rate', 1, 1, 5, false, NULL, NULL, NULL, NULL").await;
    let mut connection = leasing.connect().await;
    let ask = |plan, subject| RateAsk { key: key(plan, subject), wanted: 1, least: 1, returned: None };
    let other = Epoch::parse("another".to_owned());
    let refused = connection.lease_rates(&[ask(plan, "t:1")], &other, DEADLINE).await;
    assert!(matches!(refused, Err(StoreError::OtherServer)), "{refused:?}");
    let asks = [ask(plan_id(2), "t:1"), ask(plan, "t:1")];
    let answers = connection.lease_rates(&asks, &leasing.epoch, DEADLINE).await.unwrap();
    assert_eq!(answers[0], Leased::NoLimit);
    assert!(matches!(&answers[1], Leased::Granted(lease) if lease.grant.left == 4), "{answers:?}");
    assert_eq!(leasing.database.count("SELECT count(*) FROM rate_allowances").await, 1);
}
