//! A database whose clock is set, or wrong for a short time, by means of libfaketime. Unexpired
//! tokens are VALID again as soon as the clock is right, without a restart; none outlives its
//! expiration by more than the time for which a clock is doubted; a revocation never promises to be
//! effective everywhere too early.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokend::api::proto::create_token_request::Expiration;
use tokend::api::proto::{
    CheckPolicyRequest, CreateTokenRequest, DisableTokenRequest, EnableTokenRequest, GetTokenRequest,
    ListTokensRequest, Policy, RevokeUserTokensRequest, Token, TokenState, Verdict,
};
use tokend::clock;
use tokend::secret::Prefix;
use tokend::store::{SealWalk, Store};
use tokend::tokens::bootstrap::{Bootstrapped, bootstrap};

use super::setup::{Made, NOW, cached};
use crate::support::client::{
    Client, created, nanos, new_request_id, ordinary, question, renaming, revoked, rotated, rotation, texts,
    verified,
};
use crate::support::database::Database;
use crate::support::program::find;
use crate::support::replica::{Installation, RETENTION_INTERVAL, Replica, cheap, keyring};
use crate::support::server::Server;
use crate::support::{eventually, http};

/// A Postgres whose clock is ahead of the machine's by the offset in a file.
pub(crate) struct Clockwork {
    data: PathBuf,
    offset: PathBuf,
    pub(crate) database: Database,
    // Its janitor ends what runs on its data directory.
    _server: Server,
}

impl Clockwork {
    /// Starts one; `None` without libfaketime.
    pub(crate) async fn start() -> Option<Self> {
        find("faketime")?;
        let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
            .map(|directory| format!("{directory}/faketime/libfaketime.so.1"))
            .into_iter()
            .find(|path| fs::exists(path).unwrap())
            .expect("libfaketime beside faketime");
        let mut server = Server::start();
        let socket_dir = server.socket_dir().to_owned();
        let database = Database::migrated_on(&socket_dir).await;
        let directory = server.directory().to_owned();
        server.stop();
        let clockwork = Self {
            data: directory.join("postgres"),
            offset: directory.join("offset"),
            database,
            _server: server,
        };
        clockwork.set(0);
        let settings = format!("-c listen_addresses= -c fsync=off -k {}", socket_dir.display());
        let log = clockwork.data.join("faketime-log");
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "env"]);
            command
        } else {
            Command::new("env")
        };
        let started = command
            .arg(format!("LD_PRELOAD={library}"))
            .arg(format!("FAKETIME_TIMESTAMP_FILE={}", clockwork.offset.display()))
            .args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"])
            .arg(pg_ctl())
            .args(["start", "-w", "-o", &settings, "-l"])
            .arg(&log)
            .arg("-D")
            .arg(&clockwork.data)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(started.success(), "{}", fs::read_to_string(&log).unwrap_or_default());
        Some(clockwork)
    }

    /// Sets the clock this many seconds ahead of the machine's.
    pub(crate) fn set(&self, ahead: i64) {
        // Renamed, so that it is never read half written.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{ahead:+}\n")).unwrap();
        fs::rename(&new, &self.offset).unwrap();
    }

    async fn now(&self) -> i64 {
        self.database.count(NOW).await
    }
}

fn pg_ctl() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = installed.map(|version| version.path().join("bin/pg_ctl")).collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from("pg_ctl"))
}

async fn living_for(root: &mut Client, ttl: i64) -> Made {
    let ttl = prost_types::Duration { seconds: ttl, nanos: 0 };
    let request = CreateTokenRequest { expiration: Some(Expiration::Ttl(ttl)), ..ordinary() };
    created(root, request).await.into()
}

async fn becomes_verdict(root: &mut Client, token: &Made, verdict: Verdict) {
    eventually(&format!("{verdict:?}"), async || {
        let answer = root.verify(question(&token.secret, &[])).await.ok()?.into_inner();
        (answer.verdict() == verdict).then_some(())
    })
    .await;
}

async fn got(client: &mut Client, id: &str) -> Token {
    let request = GetTokenRequest { token_id: id.to_owned() };
    client.get_token(request).await.unwrap().into_inner().token.unwrap()
}

async fn measured(replica: &Replica, name: &str) -> f64 {
    let (_, text) = http::get(replica.http, "/metrics").await;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

async fn steps(replica: &Replica) -> f64 {
    measured(replica, "tokend_database_clock_steps_total").await
}

#[tokio::test]
async fn tokens_are_valid_again_after_a_wrong_clock_is_corrected() {
    let Some(clockwork) = Clockwork::start().await else { return };
    let installation = Installation::on(clockwork.database.clone()).await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    let token = living_for(&mut root, 3_600).await;
    becomes_verdict(&mut root, &token, Verdict::Valid).await;

    // For a short time: the token is not reported as expired, but the step of the clock is counted.
    clockwork.set(86_400);
    eventually("the step is noticed", async || (steps(&replica).await >= 1.0).then_some(())).await;
    let answer = root.verify(question(&token.secret, &[])).await.unwrap().into_inner();
    assert_eq!(answer.verdict(), Verdict::Valid);
    clockwork.set(0);
    assert_eq!(
        root.verify(question(&token.secret, &[])).await.unwrap().into_inner().verdict(),
        Verdict::Valid
    );

    // For so long that the new time is believed; and back.
    clockwork.set(86_400);
    becomes_verdict(&mut root, &token, Verdict::Expired).await;
    clockwork.set(0);
    becomes_verdict(&mut root, &token, Verdict::Valid).await;
    assert!(steps(&replica).await >= 2.0);
}

#[tokio::test]
async fn no_token_outlives_its_expiration_beyond_the_doubt_when_the_clock_is_corrected() {
    let Some(clockwork) = Clockwork::start().await else { return };
    // So far the clock has been an hour slow.
    clockwork.set(-3_600);
    let installation = Installation::on(clockwork.database.clone()).await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    let token = living_for(&mut root, 1_800).await;
    becomes_verdict(&mut root, &token, Verdict::Valid).await;

    clockwork.set(0);
    becomes_verdict(&mut root, &token, Verdict::Expired).await;
    // The verdict does not change back.
    let answer = root.verify(question(&token.secret, &[])).await.unwrap().into_inner();
    assert_eq!(answer.verdict(), Verdict::Expired);
}

#[tokio::test]
async fn a_revocation_promises_at_least_the_longest_bound_just_after_the_clock_was_set() {
    let Some(clockwork) = Clockwork::start().await else { return };
    let installation = Installation::on(clockwork.database.clone()).await;
    let replica = installation.serve(installation.config()).await;
    // Another replica, with a larger staleness bound; to a clock that is ahead its registration
    // looks long out of date.
    let mut slow = installation.config();
    slow.bounds.max_staleness = Duration::from_secs(4);
    let _other = installation.serve(slow).await;
    let mut root = replica.root();
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(cached(&mut root).await);
    }
    for (token, ahead) in tokens.iter().zip([7_200, 0, 86_400, 3_600, 90_000, 0]) {
        clockwork.set(ahead);
        // What is believed meanwhile is the time before it was set.
        let before = clockwork.now().await - ahead * 1_000_000;
        let promised = revoked(&mut root, &token.id, "").await.effective_time;
        let promised = i64::try_from(nanos(promised.as_ref()) / 1_000).unwrap();
        assert!(promised - before >= 4_000_000, "{ahead}: {} µs", promised - before);
    }
}

/// Makes the clock wrong from now on, by another day each second, so that no reading is ever believed.
async fn goes_wrong(clockwork: &Clockwork) {
    for days in (1..300).cycle() {
        clockwork.set(days * 86_400);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn promises_and_warnings_use_the_clock_of_verify() {
    let Some(clockwork) = Clockwork::start().await else { return };
    let installation = Installation::on(clockwork.database.clone()).await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    let token = cached(&mut root).await;
    becomes_verdict(&mut root, &token, Verdict::Valid).await;

    let calls = async {
        eventually("the step is noticed", async || (steps(&replica).await >= 1.0).then_some(())).await;
        let before = clock::now().unix_timestamp();
        let promised = revoked(&mut root, &token.id, "").await.effective_time.unwrap().seconds;
        let user_id = created(&mut root, ordinary()).await.token.unwrap().user_id;
        let request = RevokeUserTokensRequest { user_id, ..Default::default() };
        let of_user = root.revoke_user_tokens(request).await.unwrap().into_inner().effective_time.unwrap();
        // Two rounds of sealing, each of which finds events that are not sealed yet.
        let (mut sealed, mut unsealed) = (HashSet::new(), 0.0_f64);
        while sealed.len() < 3 {
            created(&mut root, ordinary()).await;
            sealed.insert(clockwork.database.count("SELECT count(*) FROM audit_seals").await);
            unsealed = unsealed.max(measured(&replica, "tokend_audit_unsealed_seconds").await);
        }
        // A step of the clock is a day and more.
        let reported = [promised - before, of_user.seconds - before];
        assert!(
            reported.iter().all(|ahead| (0..3_600).contains(ahead)) && unsealed < 3_600.0,
            "{reported:?} {unsealed}"
        );
    };
    tokio::select! {
        () = goes_wrong(&clockwork) => unreachable!(),
        () = calls => {}
    }
}

#[tokio::test]
async fn the_age_of_unsealed_events_uses_the_clock_of_verify() {
    let Some(clockwork) = Clockwork::start().await else { return };
    let installation = Installation::on(clockwork.database.clone()).await;
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    created(&mut root, ordinary()).await;
    // No event is sealed while an earlier transaction may still write one.
    let mut writer = clockwork.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT pg_current_xact_id()").execute(&mut writer).await.unwrap();
    created(&mut root, ordinary()).await;

    let ages = async {
        eventually("the step is noticed", async || (steps(&replica).await >= 1.0).then_some(())).await;
        let mut ages = Vec::new();
        eventually("a few ages", async || {
            let age = measured(&replica, "tokend_audit_unsealed_seconds").await;
            if !ages.contains(&age) {
                ages.push(age);
            }
            // The first ones may be of before the step.
            (ages.len() == 4).then_some(())
        })
        .await;
        assert!(ages.iter().all(|age| *age < 3_600.0), "{ages:?}");
    };
    tokio::select! {
        () = goes_wrong(&clockwork) => unreachable!(),
        () = ages => {}
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_deletes_nothing_early_and_creates_no_root_token() {
    let Some(clockwork) = Clockwork::start().await else { return };
    let installation = Installation::on(clockwork.database.clone()).await;
    let database = &installation.database;
    let ring = keyring(&[&installation.key]);
    let replica = installation.serve(installation.config()).await;
    let mut root = replica.root();
    // The only root token that is left has an end.
    let ttl = Some(Expiration::Ttl(prost_types::Duration { seconds: 10 * 86_400, nanos: 0 }));
    let scopes = texts(&["tokend:root"]);
    created(&mut root, CreateTokenRequest { expiration: ttl, scopes, ..ordinary() }).await;
    let other = verified(&mut root, &installation.root_secret, &[]).await.token.unwrap().id;
    revoked(&mut root, &other, "").await;
    // As a process that has just started and has not read the database's clock yet.
    let store = Store::new(database.options(), 1);
    store.open();
    let sealed = eventually("a seal", async || {
        store.check_seal(&mut SealWalk::default(), &ring).await.unwrap().map(|seal| seal.sealed)
    })
    .await;

    clockwork.set(40 * 86_400);

    let events = store.purge_events(&sealed, &ring).await;
    store.purge_changes().await.unwrap();
    let raised = "SELECT count(*) FROM change_horizon WHERE purged_below > '0'";
    let raised = database.count(raised).await;
    let made = bootstrap(&store, &ring, &Prefix::default(), cheap(), |_| Ok(())).await.unwrap();
    let is_kept = (events.is_err(), raised, matches!(made, Bootstrapped::Exists));
    assert_eq!(is_kept, (true, 0, true), "events of an hour ago, changes, the root token");
}

#[tokio::test]
async fn every_check_uses_the_clock_of_verify() {
    let Some(clockwork) = Clockwork::start().await else { return };
    let installation = Installation::on(clockwork.database.clone()).await;
    let mut config = installation.config();
    config.retention.kept = Duration::from_hours(1);
    config.retention.interval = RETENTION_INTERVAL;
    let replica = installation.serve(config).await;
    let mut root = replica.root();
    let ttl = Some(Expiration::Ttl(prost_types::Duration { seconds: 3_600, nanos: 0 }));
    let scopes = texts(&["tokend:root"]);
    let mighty = CreateTokenRequest { expiration: ttl, scopes, user_id: "eve".to_owned(), ..ordinary() };
    let caller = Made::from(created(&mut root, mighty).await);
    let mut client = replica.client(&caller.secret);
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(living_for(&mut root, 3_000).await);
    }
    becomes_verdict(&mut root, &caller, Verdict::Valid).await;
    let request_id = new_request_id();
    let creation = CreateTokenRequest { request_id, user_id: "eve".to_owned(), ..ordinary() };

    let calls = async {
        eventually("the step is noticed", async || (steps(&replica).await >= 1.0).then_some(())).await;
        assert_eq!(verified(&mut client, &tokens[0].secret, &[]).await.verdict(), Verdict::Valid);
        let shown = got(&mut client, &tokens[0].id).await;
        assert_eq!(shown.state(), TokenState::Active, "GetToken");
        for (order_by, state, number) in [
            ("create_time desc", TokenState::Active, 3),
            ("create_time desc", TokenState::Expired, 0),
            ("expire_time", TokenState::Active, 3),
            ("expire_time", TokenState::Expired, 0),
        ] {
            let request = ListTokensRequest {
                user_id: "ada".to_owned(),
                states: vec![state.into()],
                order_by: order_by.to_owned(),
                ..Default::default()
            };
            let listed = client.list_tokens(request).await.unwrap().into_inner().tokens;
            assert_eq!(listed.len(), number, "{state:?} by {order_by}");
            assert!(listed.iter().all(|token| token.state() == state));
        }
        // The caller is accepted, and the tokens that it changes have not expired.
        let made = created(&mut client, creation.clone()).await;
        let again = created(&mut client, creation.clone()).await;
        assert_eq!(made, again);
        let renamed = client.update_token(renaming(&tokens[0].id)).await.unwrap().into_inner().token.unwrap();
        assert_eq!(renamed.state(), TokenState::Active, "UpdateToken");
        let disabling = DisableTokenRequest { token_id: tokens[0].id.clone(), ..Default::default() };
        let disabled = client.disable_token(disabling).await.unwrap().into_inner().token.unwrap();
        assert_eq!(disabled.state(), TokenState::Disabled, "DisableToken");
        let enabling = EnableTokenRequest { token_id: tokens[0].id.clone() };
        let enabled = client.enable_token(enabling).await.unwrap().into_inner().token.unwrap();
        assert_eq!(enabled.state(), TokenState::Active, "EnableToken");
        rotated(&mut client, rotation(&tokens[1].id)).await;
        let quota = Policy { most_active_tokens_per_user: 1, ..Policy::default() };
        let check = CheckPolicyRequest { policy: Some(quota), ..Default::default() };
        let breaches = client.check_policy(check).await.unwrap().into_inner().breaches;
        assert_eq!(breaches.len(), 2, "those that have not expired count: {breaches:?}");
        revoked(&mut client, &tokens[2].id, "").await;
        // The purge of old tokens has deleted none, although it has run several times meanwhile.
        assert_eq!(clockwork.database.count("SELECT count(*) FROM tokens").await, 7);
    };
    tokio::select! {
        () = goes_wrong(&clockwork) => unreachable!(),
        () = calls => {}
    }
}
