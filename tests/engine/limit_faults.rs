//! Limits over three replicas under load while something fails: replicas are killed and frozen, connections are cut, the
//! primary is lost, plans change, tokens are rotated and revoked. `limit_count` judges what was answered.
//! `TOKEND_LONG=1` asks for ten million answers.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Row as _};
use tokend::api::proto::{CreateTokenRequest, RotateTokenRequest};
use tokio::task::JoinSet;

use super::fleet::{Process, long, report};
use super::limit_count::{Account, Kind, LEASE, Nanos, Rule, since};
use super::limit_load::{Limited, Load};
use super::setup::Made;
use crate::support::client::{created, nanos, new_request_id, ordinary, revocation, rotation};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::Installation;
use crate::support::server::{Server, Standby};

const SECOND: i64 = 1_000_000_000;

/// A limit as a plan of the test has it.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// So many requests in so many seconds, and at once.
    Rate(i64, i64, i64),
    Credits(i64),
}

/// A plan: its name and its limits, with their names and what they count.
type Plan = (&'static str, &'static [(&'static str, &'static str, Of)]);

const PLANS: [Plan; 5] = [
    (
        "rates",
        &[
            ("own", "token", Of::Rate(10, 1, 20)),
            ("user", "user", Of::Rate(25, 1, 40)),
            ("all", "organization", Of::Rate(40, 1, 60)),
        ],
    ),
    ("credits", &[("own", "token", Of::Credits(4_000)), ("all", "organization", Of::Credits(50_000))]),
    ("both", &[("calls", "user", Of::Rate(30, 1, 30)), ("money", "user", Of::Credits(20_000))]),
    ("low", &[("rare", "token", Of::Rate(1, 2, 2))]),
    ("changing", &[("own", "token", Of::Rate(10, 1, 40))]),
];

/// What the plan that changes becomes in turn.
const CHANGES: [(i64, i64); 2] = [(4, 5), (10, 40)];

const TOKENS_PER_PLAN: usize = 8;

impl Of {
    fn rule(self, from: Nanos) -> Option<Rule> {
        let Self::Rate(requests, seconds, burst) = self else { return None };
        Some(Rule { from, to: i64::MAX, interval: seconds * SECOND / requests, burst })
    }
}

/// Three replicas, each with its own link to a primary with a standby.
struct Scene {
    began: Instant,
    old: Server,
    new: Standby,
    installation: Installation,
    database: Database,
    links: Vec<Proxy>,
    fleet: Vec<Process>,
    accounts: HashMap<(String, String, String), Arc<Account>>,
    load: Arc<Load>,
    clients: JoinSet<()>,
    /// When replicas were killed, by the database's clock in microseconds.
    kills: Vec<i64>,
    changes: usize,
}

impl Scene {
    async fn set() -> Self {
        let old = Server::start();
        let installation = Installation::on(Database::migrated_on(old.socket_dir()).await).await;
        let new = Standby::of(&old);
        let database = installation.database.clone();
        database.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
        database.execute("SELECT pg_reload_conf()").await;
        eventually("commits wait for the standby", async || {
            let asked = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            (database.count(asked).await == 1).then_some(())
        })
        .await;
        make_plans(&database).await;
        let (mut links, mut fleet) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let link = Proxy::to(old.socket_dir(), LinkState::Open).await;
            fleet.push(Process::start(&installation, &link.url("tokend"), &[]).await);
            links.push(link);
        }
        let began = Instant::now();
        let mut accounts = HashMap::new();
        let tokens = make_tokens(&fleet[0], &mut accounts).await;
        let load = Load::new(began, tokens, fleet.iter().map(Process::root).collect());
        let clients = load.start();
        let (kills, changes) = (Vec::new(), 0);
        Self {
            began,
            old,
            new,
            installation,
            database,
            links,
            fleet,
            accounts,
            load,
            clients,
            kills,
            changes,
        }
    }

    /// Waits until the clients have got this many more answers.
    async fn goes_on(&self, more: u64) {
        let until = self.load.answers() + more;
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.load.answers() < until {
            assert!(Instant::now() < deadline, "the load has stopped: {}", self.load.shown());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn freeze(&self, replica: usize, length: Duration) {
        self.fleet[replica].freeze();
        tokio::time::sleep(length).await;
        self.fleet[replica].thaw();
    }

    /// Kills a replica and starts another in its stead.
    async fn kill(&mut self, replica: usize) {
        self.load.set_door(replica, None);
        self.fleet[replica].kill();
        self.kills.push(self.now().await);
        self.fleet[replica] =
            Process::start(&self.installation, &self.links[replica].url("tokend"), &[]).await;
        self.load.set_door(replica, Some(self.fleet[replica].root()));
    }

    /// Cuts or holds a replica's link to the database for so many answers.
    async fn disconnect(&self, replica: usize, state: LinkState, answers: u64) {
        self.links[replica].set(state);
        self.goes_on(answers).await;
        self.links[replica].set(LinkState::Open);
    }

    /// Changes a plan as `SetPlan` does.
    async fn change_plan(&mut self) {
        let (requests, burst) = CHANGES[self.changes % CHANGES.len()];
        self.changes += 1;
        let ended = since(self.began);
        let change = format!(
            "WITH changed AS (UPDATE plans SET revision = revision + 1, update_time = now() WHERE name = 'changing' RETURNING plan_id)
             UPDATE plan_limits l SET requests = {requests}, burst = {burst} FROM changed c WHERE l.plan_id = c.plan_id"
        );
        assert_eq!(self.database.execute(change).await, 1);
        // What was leased before is spent within its lease.
        let from = since(self.began) + i64::try_from(LEASE.as_nanos()).unwrap();
        let next = Of::Rate(requests, 1, burst).rule(from).unwrap();
        for ((plan, ..), account) in &self.accounts {
            if plan == "changing" {
                account.change(ended, next);
            }
        }
    }

    /// Rotates and revokes tokens; both may have to be repeated.
    async fn rotate_and_revoke(&self, rotated: usize, revoked: usize) {
        let token = &self.load.tokens()[rotated];
        let request = RotateTokenRequest { request_id: new_request_id(), ..rotation(&token.made().id) };
        let successor = eventually("it is rotated", async || {
            Some(self.fleet[0].root().rotate_token(request.clone()).await.ok()?.into_inner())
        })
        .await;
        token.succeeded_by(Made { id: successor.token.unwrap().id, secret: successor.secret });
        let token = &self.load.tokens()[revoked];
        let request = revocation(&token.made().id, "");
        let done = eventually("it is revoked", async || {
            Some(self.fleet[1].root().revoke_token(request.clone()).await.ok()?.into_inner())
        })
        .await;
        token.is_revoked(nanos(done.effective_time.as_ref()));
    }

    /// Loses the primary, and promotes its standby.
    fn fail_over(&mut self) {
        self.old.kill();
        self.new.promote();
        for link in &self.links {
            link.lead_to(self.new.socket_dir());
        }
        self.database = Database::named(self.new.socket_dir(), "tokend");
    }

    /// Returns the database's time in microseconds.
    async fn now(&self) -> i64 {
        self.database.count(super::setup::NOW).await
    }

    /// Ends the load and judges what was answered.
    async fn judge(mut self) {
        self.load.end();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        report(&self.load.shown());
        let mut rates = 0;
        for ((plan, ..), account) in &self.accounts {
            let excess = account.excess();
            assert!(excess <= 0, "{plan}/{} of {}: {excess} too many", account.limit, account.subject);
            rates += i64::from(matches!(account.kind, Kind::Rate(_))) * account.answered();
        }
        assert!(rates > 0, "rates were spent");
        self.balance().await;
    }

    /// Waits until living replicas have returned what they had leased; then balances all credits.
    async fn balance(&self) {
        let kills: Vec<_> = self.kills.iter().map(ToString::to_string).collect();
        // A statement of a killed replica may still have run.
        let left = format!(
            "SELECT count(*) FROM credit_leases l WHERE NOT EXISTS (SELECT FROM unnest(ARRAY[{}]::bigint[]) AS kill
                 WHERE extract(epoch FROM l.lease_time) * 1000000 BETWEEN kill - 2000000 AND kill + 1000000)",
            kills.join(", ")
        );
        eventually("only killed replicas have leases", async || {
            (self.database.count(left.as_str()).await == 0).then_some(())
        })
        .await;
        let stored = "SELECT p.name AS plan, b.limit_name, b.subject, l.initial, b.balance, b.debited::bigint AS debited,
                b.returned::bigint AS returned, b.lost::bigint AS lost, b.leased::bigint AS leased,
                (SELECT coalesce(sum(amount), 0)::bigint FROM credit_leases c WHERE c.plan_id = b.plan_id
                    AND c.limit_name = b.limit_name AND c.subject = b.subject) AS open
            FROM credit_balances b JOIN plans p USING (plan_id) JOIN plan_limits l ON l.plan_id = b.plan_id AND l.name = b.limit_name";
        let rows =
            sqlx::query(AssertSqlSafe(stored)).fetch_all(&mut self.database.connect().await).await.unwrap();
        assert!(!rows.is_empty(), "credits were spent");
        let mut totals = [0; 6];
        for row in rows {
            let text = |name| row.get::<String, _>(name);
            let number = |name| row.get::<i64, _>(name);
            let account = &self.accounts[&(text("plan"), text("limit_name"), text("subject"))];
            let what = format!("{}/{} of {}", text("plan"), account.limit, account.subject);
            assert_eq!(number("leased"), number("open"), "{what}: leased");
            assert_eq!(
                number("balance"),
                number("initial") - number("debited") + number("returned"),
                "{what}"
            );
            assert!(account.answered() <= number("initial"), "{what}: more than there were");
            let unanswered = number("debited") - number("returned") - account.answered();
            // What a killed replica had leased counts as lost, although it has answered with a part of it.
            let lost = number("lost") + number("leased");
            let most = lost + account.cut();
            let shown = format!(
                "{unanswered} debited and not answered; {lost} lost, at most {} cut off",
                account.cut()
            );
            assert!((0..=most).contains(&unanswered), "{what}: {shown}");
            let row =
                [number("debited"), account.answered(), number("returned"), unanswered, lost, account.cut()];
            for (total, more) in totals.iter_mut().zip(row) {
                *total += more;
            }
        }
        let [debited, answered, returned, unanswered, lost, cut] = totals;
        report(&format!(
            "credits: {debited} debited = {answered} answered + {returned} returned + {unanswered}, of which {lost} were \
             leased by killed replicas and at most {cut} cut off"
        ));
    }
}

async fn make_plans(database: &Database) {
    for (plan, limits) in PLANS {
        let mut values = String::new();
        for (position, (name, per, of)) in limits.iter().enumerate() {
            let (kind, numbers) = match of {
                Of::Rate(requests, seconds, burst) => {
                    ("rate", format!("{requests}, {seconds}, {burst}, false, NULL"))
                }
                Of::Credits(initial) => ("credits", format!("NULL, NULL, NULL, NULL, {initial}")),
            };
            let comma = if position == 0 { "" } else { "," };
            write!(values, "{comma} ('{name}', {position}, '{per}', '{kind}', {numbers})").unwrap();
        }
        let insert = format!(
            "WITH made AS (INSERT INTO plans (organization_id, name, updated_by, update_time)
                 VALUES ('default', '{plan}', 'test', now()) RETURNING plan_id)
             INSERT INTO plan_limits (plan_id, name, position, per, kind, requests, period, burst, admits_in_outage, initial)
             SELECT plan_id, l.name, l.position, l.per, l.kind, l.requests::bigint, l.period::bigint, l.burst::bigint,
                 l.admits::boolean, l.initial::bigint
             FROM made, (VALUES {values}) AS l (name, position, per, kind, requests, period, burst, admits, initial)"
        );
        database.execute(insert).await;
    }
}

/// Creates tokens of two users with each plan, and the accounts of their limits.
async fn make_tokens(
    process: &Process,
    accounts: &mut HashMap<(String, String, String), Arc<Account>>,
) -> Vec<Limited> {
    let mut root = process.root();
    let mut tokens = Vec::new();
    for number in 0..TOKENS_PER_PLAN {
        for (plan, limits) in PLANS {
            let user_id = ["ada", "bob"][number % 2].to_owned();
            let request =
                CreateTokenRequest { plan: plan.to_owned(), user_id: user_id.clone(), ..ordinary() };
            let made: Made = created(&mut root, request).await.into();
            let of_token = limits.iter().map(|(name, per, of)| {
                let subject = match *per {
                    "token" => format!("t:{}", made.id),
                    "user" => format!("u:user:{user_id}"),
                    _ => "o:".to_owned(),
                };
                let key = (plan.to_owned(), (*name).to_owned(), subject.clone());
                let kind = || of.rule(0).map_or(Kind::Credits, |rule| Kind::Rate(Mutex::new(vec![rule])));
                Arc::clone(
                    accounts.entry(key).or_insert_with(|| Arc::new(Account::new(name, &subject, kind()))),
                )
            });
            let of_token = of_token.collect();
            tokens.push(Limited::new(made, of_token));
        }
    }
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_has_a_limit_exceeded() {
    let mut scene = Scene::set().await;
    let target = if long() { 10_000_000 } else { 12_000 };
    let mut round = 0;
    while scene.load.answers() < target / 2 || round == 0 {
        scene.faults(round).await;
        round += 1;
    }
    scene.fail_over();
    let before = round;
    while scene.load.answers() < target || round == before {
        scene.faults(round).await;
        round += 1;
    }
    scene.judge().await;
}

/// So many answers between two faults.
const STEP: u64 = 600;

impl Scene {
    /// One of each fault.
    async fn faults(&mut self, round: usize) {
        let replica = |number: usize| (round + number) % 3;
        self.goes_on(STEP).await;
        self.freeze(replica(0), Duration::from_secs(2)).await;
        self.goes_on(STEP).await;
        self.disconnect(replica(1), LinkState::Cut, STEP).await;
        self.change_plan().await;
        self.kill(replica(2)).await;
        self.goes_on(STEP).await;
        self.disconnect(replica(0), LinkState::Stalled, STEP).await;
        if round < 4 {
            self.rotate_and_revoke(round, 8 + round).await;
        }
        self.goes_on(STEP).await;
    }
}
