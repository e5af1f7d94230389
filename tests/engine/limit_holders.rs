//! A replica that is frozen with a share of a rate, and a database whose clock is set while limits are spent.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokend::api::proto::{CreateTokenRequest, Verdict, VerifyRequest, VerifyResponse};
use tokend::clock;

use super::clock::Clockwork;
use super::fleet::{Process, url};
use super::limit_count::{Account, Admission, Kind, Rule, since};
use super::setup::Made;
use crate::support::client::{Client, created, ordinary, question};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::replica::Installation;

/// Makes a plan with one limit per token, of which `rest` is SQL.
async fn plan(database: &Database, name: &str, rest: &str) {
    let insert = format!(
        "WITH made AS (INSERT INTO plans (organization_id, name, updated_by, update_time)
             VALUES ('default', '{name}', 'test', now()) RETURNING plan_id)
         INSERT INTO plan_limits (plan_id, name, position, per, kind, requests, period, burst, admits_in_outage, initial,
             refill_amount, refill_period, refill_adds)
         SELECT plan_id, 'calls', 0, 'token', {rest} FROM made"
    );
    database.execute(insert).await;
}

async fn limited(root: &mut Client, plan: &str) -> Made {
    created(root, CreateTokenRequest { plan: plan.to_owned(), ..ordinary() }).await.into()
}

async fn spent(root: &mut Client, token: &Made, cost: u32) -> VerifyResponse {
    let request = VerifyRequest { cost: Some(cost), ..question(&token.secret, &[]) };
    root.verify(request).await.unwrap().into_inner()
}

/// Spends by ones until that is refused; returns how many were VALID, and the refusal.
async fn drained(root: &mut Client, token: &Made) -> (u32, VerifyResponse) {
    let mut valid = 0;
    loop {
        let answer = spent(root, token, 1).await;
        if answer.verdict() != Verdict::Valid {
            return (valid, answer);
        }
        valid += 1;
    }
}

const INTERVAL: i64 = 20_000_000;
const BURST: u32 = 1_000;

/// Returns how many requests are leased and have not refilled.
async fn debt(database: &Database) -> i64 {
    let debt = "SELECT ceil(greatest(max(full_time) - extract(epoch FROM clock_timestamp()) * 1000000000, 0) / 20000000)::bigint
        FROM rate_allowances";
    database.count(debt).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_spends_nothing_of_its_share_once_it_is_thawed() {
    let installation = Installation::new().await;
    let database = &installation.database;
    plan(database, "fast", &format!("'rate', 50, 1, {BURST}, false, NULL, NULL, NULL, NULL")).await;
    let holder = Process::start(&installation, &url(database), &[]).await;
    let other = Process::start(&installation, &url(database), &[]).await;
    let token = limited(&mut holder.root(), "fast").await;
    assert_eq!(spent(&mut other.root(), &token, 0).await.verdict(), Verdict::Valid);
    let began = Instant::now();
    let rule = Rule { from: 0, to: i64::MAX, interval: INTERVAL, burst: BURST.into() };
    let account = Account::new("calls", "t:", Kind::Rate(Mutex::new(vec![rule])));
    let spend = async |process: &Process, cost| {
        let sent = since(began);
        let answer = spent(&mut process.root(), &token, cost).await;
        if answer.verdict() == Verdict::Valid {
            account.admit(Admission { sent, answered: since(began), cost });
        }
        answer.verdict()
    };

    // Its use has more leased ahead; that is returned after half of a lease, unless it is frozen before.
    eventually("it is frozen with a share", async || {
        assert_eq!(spend(&holder, 40).await, Verdict::Valid);
        let looked = Instant::now();
        while looked.elapsed() < Duration::from_millis(200) {
            if debt(database).await >= 120 {
                holder.freeze();
                if debt(database).await >= 110 {
                    return Some(());
                }
                holder.thaw();
            }
        }
        None
    })
    .await;
    eventually("all has refilled", async || (debt(database).await == 0).then_some(())).await;
    assert_eq!(spend(&other, BURST).await, Verdict::Valid);

    let spending = async {
        for _ in 0..20 {
            spend(&holder, 8).await;
        }
    };
    holder.thaw();
    spending.await;
    let excess = account.excess();
    assert!(excess <= 0, "{excess} too many");
}

/// Returns how far ahead a time of the year 2028 is.
fn ahead_of(time: time::OffsetDateTime) -> i64 {
    time.unix_timestamp() - clock::now().unix_timestamp()
}

#[tokio::test]
async fn a_calendar_refills_after_a_leap_day_and_never_twice() {
    let Some(clockwork) = Clockwork::start().await else { return };
    clockwork.set(ahead_of(time::macros::datetime!(2028-02-29 23:30 UTC)));
    let installation = Installation::on(clockwork.database.clone()).await;
    let database = &installation.database;
    plan(database, "monthly", "'credits', NULL, NULL, NULL, NULL, 3, 5, 'month', false").await;
    plan(database, "daily", "'credits', NULL, NULL, NULL, NULL, 1, 2, 'day', true").await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    let (monthly, daily) = (limited(&mut root, "monthly").await, limited(&mut root, "daily").await);

    for (token, initial) in [(&monthly, 3), (&daily, 1)] {
        let (valid, refusal) = drained(&mut root, token).await;
        assert_eq!((valid, refusal.verdict()), (initial, Verdict::CreditsExhausted));
        let wait = refusal.retry_after.unwrap().seconds;
        assert!((1..=1_800).contains(&wait), "{wait} s until March");
    }

    for (now, [of_month, of_days]) in [
        (time::macros::datetime!(2028-03-01 00:00:01 UTC), [5, 2]),
        (time::macros::datetime!(2028-02-29 23:30 UTC), [0, 0]),
        (time::macros::datetime!(2028-03-01 00:10 UTC), [0, 0]),
        (time::macros::datetime!(2028-03-03 12:00 UTC), [0, 4]),
        (time::macros::datetime!(2028-12-31 12:00 UTC), [5, 606]),
    ] {
        clockwork.set(ahead_of(now));
        for (token, expected) in [(&monthly, of_month), (&daily, of_days)] {
            let mut valid = 0;
            // What was refused is remembered for a lease.
            for _ in 0..3 {
                valid += drained(&mut root, token).await.0;
                tokio::time::sleep(Duration::from_millis(600)).await;
            }
            assert_eq!(valid, expected, "{now}");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_refills_a_rate_once_and_delays_it_by_one_refill() {
    let Some(clockwork) = Clockwork::start().await else { return };
    let installation = Installation::on(clockwork.database.clone()).await;
    plan(&installation.database, "slow", "'rate', 1, 2, 3, false, NULL, NULL, NULL, NULL").await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    let token = limited(&mut root, "slow").await;
    let began = Instant::now();
    let mut valid = drained(&mut root, &token).await.0;
    let mut jumps = 0;
    for ahead in [-600, 0, 600, 0] {
        clockwork.set(ahead);
        jumps += u32::from(ahead == 600);
        // A burst refills in six seconds, an offset of ten minutes would take ten minutes.
        eventually("it is VALID again", async || {
            (spent(&mut root, &token, 1).await.verdict() == Verdict::Valid).then_some(())
        })
        .await;
        valid += 1 + drained(&mut root, &token).await.0;
    }
    // Back to the right time from -600 is a jump ahead, too.
    jumps += 1;
    let refilled = u32::try_from(began.elapsed().as_secs()).unwrap() / 2 + 1;
    assert!(valid <= 3 * (1 + jumps) + refilled, "{valid}");
}
