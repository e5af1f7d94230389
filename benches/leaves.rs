//! The parts of one Verify, measured separately: `cargo bench --bench leaves`. Starts a disposable
//! Postgres, which the engine needs; no measured code reads it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use criterion::Criterion;
use prost::Message as _;
use prost::bytes::BytesMut;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokend::admission::hash_pool::HashPool;
use tokend::api::grpc::VerifyReply;
use tokend::clock;
use tokend::domain::{
    Labels, OrganizationId, Principal, Reach, Record, Scope, Scopes, Token, TokenName, UserId, Verdict, judge,
};
use tokend::metrics::{Lookup, Metrics, Rpc};
use tokend::private_postgres::{Cluster, Durability};
use tokend::secret::{CurrentKeyring, DurableCost, Keyring, Prefix, Secret, TokenId};
use tokend::store::{self, Store};
use tokend::tokens::bootstrap::{Bootstrapped, bootstrap};
use tokend::verify::{
    Bounds, ClientKey, Consistency, CredentialCache, Criteria, Engine, EngineConfig, mac_refresh,
};
use tokio::runtime::Runtime;

/// The same allocator as in tokend.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the engine may take to reach its database.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    pure(&mut criterion)?;
    // `cargo test --all-targets` runs each part once: without a database.
    if std::env::args().any(|argument| argument == "--bench") {
        engine(&mut criterion)?;
    }
    criterion.final_summary();
    Ok(())
}

/// Measures the parts that need only their arguments.
fn pure(criterion: &mut Criterion) -> anyhow::Result<()> {
    let (prefix, randomness) = (Prefix::default(), &mut clock::randomness());
    let keyring = Keyring::parse(Keyring::generate_entry(randomness)?.expose_secret())?;
    let id = TokenId::generate(1_750_000_000_000, randomness)?;
    let secret = Secret::generate(id, randomness)?;
    let (text, mac) = (secret.render(&prefix), keyring.mac(&secret));
    criterion.bench_function("parse", |b| b.iter(|| Secret::parse(black_box(text.expose_secret()), &prefix)));
    criterion.bench_function("mac", |b| b.iter(|| keyring.check(black_box(&secret), &mac)));

    let (record, now) = record(id, mac)?;
    let organization = OrganizationId::parse("acme")?;
    let required = scopes(&["reports:read"])?;
    criterion.bench_function("judge", |b| {
        b.iter(|| judge(black_box(&record), now, Reach::Only(&organization), &required, None));
    });
    metrics(criterion)?;
    criterion.bench_function("required scopes", |b| b.iter(|| scopes(black_box(&["reports:read"]))));
    Ok(())
}

/// Measures the counting of a Verify from the cache, alone and while another core counts all the time,
/// which is the worst case.
fn metrics(criterion: &mut Criterion) -> anyhow::Result<()> {
    let metrics = Metrics::new()?;
    let count = || {
        // The caller's record and the token's.
        metrics.engine.lookup(Lookup::Hit);
        metrics.engine.lookup(Lookup::Hit);
        metrics.calls.verdict(Verdict::Valid);
        metrics.calls.answered(Rpc::Verify, 0, black_box(Duration::from_micros(5)));
    };
    criterion.bench_function("metrics", |b| b.iter(count));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                count();
            }
        });
        criterion.bench_function("metrics beside another core", |b| b.iter(count));
        ended.store(true, Ordering::Relaxed);
    });
    Ok(())
}

fn scopes(texts: &[&str]) -> anyhow::Result<Scopes> {
    Ok(Scopes::new(texts.iter().map(|text| Scope::parse(text)).collect::<Result<_, _>>()?)?)
}

fn record(id: TokenId, mac: tokend::secret::Mac) -> anyhow::Result<(Record, time::OffsetDateTime)> {
    let now = time::OffsetDateTime::from_unix_timestamp(1_760_000_000)?;
    let owner = (OrganizationId::parse("acme")?, UserId::parse("user-000123")?);
    let name = TokenName::parse("continuous integration")?;
    let creation = (now - time::Duration::days(1), Principal::Bootstrap);
    let token = Token {
        scopes: scopes(&["repo:*", "user:read", "deploy:staging", "reports:read"])?,
        labels: Labels::parse([("team", "billing"), ("environment", "production")].map(owned))?,
        expire_time: Some(now + time::Duration::days(1)),
        ..Token::new(id, owner, name, creation)
    };
    Ok((Record::new(&token, mac), now))
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Measures the parts that need an engine with a database: a whole cache hit, and its response.
fn engine(criterion: &mut Criterion) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("tokend-leaves-").tempdir_in("/tmp")?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(directory.path(), permissions)?;
    let cluster = Cluster::start(directory.path(), Durability::Disposable)?;
    let options = PgConnectOptions::new_without_pgpass()
        .socket(cluster.socket_dir())
        .port(Cluster::PORT)
        .username(Cluster::ROLE)
        .database(Cluster::DATABASE)
        .ssl_mode(PgSslMode::Disable);
    let runtime = Runtime::new()?;
    let (engine, secret) = runtime.block_on(start(options))?;
    let _inside = runtime.enter();

    let none = Scopes::default();
    let request = Criteria {
        cost: 1,
        limit: None,
        required: &none,
        reach: Reach::Any,
        client_ip: None,
        charged_to: ClientKey::Peer(None),
    };
    let ask = || {
        let read_point = engine.read_point().context("the cache is not fresh")?;
        engine.try_verify(secret.expose_secret(), &request, &read_point).context("the record is not there")
    };
    ask()?;
    criterion.bench_function("cache hit", |b| b.iter(ask));
    criterion.bench_function("authenticate", |b| {
        b.iter(|| {
            let nothing = CredentialCache::default();
            engine.try_authenticate(secret.expose_secret(), None, &nothing, &engine.read_point()?)
        });
    });
    let proven = CredentialCache::default();
    criterion.bench_function("authenticate again", |b| {
        b.iter(|| engine.try_authenticate(secret.expose_secret(), None, &proven, &engine.read_point()?));
    });
    let reply = VerifyReply::from(ask()?);
    let mut buffer = BytesMut::with_capacity(1024);
    criterion.bench_function("encode reply", |b| {
        b.iter(|| {
            buffer.clear();
            reply.encode(black_box(&mut buffer))
        });
    });
    drop(engine);
    Ok(())
}

/// Starts an engine on a new database with a root token, and makes it read that token.
async fn start(options: PgConnectOptions) -> anyhow::Result<(Engine, SecretString)> {
    let (prefix, cost) = (Prefix::default(), DurableCost::new(64, 1, 1)?);
    let key = Keyring::generate_entry(&mut clock::randomness())?;
    let keyring = Arc::new(Keyring::parse(key.expose_secret())?);
    store::migrate(&options.clone().into(), &prefix).await?;
    let store = Store::new(options, 2);
    store.open();
    let Bootstrapped::Created(secret) = bootstrap(&store, &keyring, &prefix, cost, |_| Ok(())).await? else {
        bail!("there was a root token");
    };
    let metrics = Arc::new(Metrics::new()?);
    let engine = Engine::start(EngineConfig {
        connector: store.connector(),
        feed_connector: store.connector(),
        store,
        keyring: Arc::new(CurrentKeyring::new(keyring)),
        prefix,
        hashing: HashPool::new(1, metrics.work.fallback.clone()),
        limit: cost,
        refresh: mac_refresh::queue().0,
        bounds: Bounds { max_staleness: Duration::from_mins(1), outage_grace: Duration::ZERO },
        cache_bytes: 1 << 20,
        replica: clock::random_uuid(),
        metrics,
    });
    let none = Scopes::default();
    let request = Criteria {
        cost: 1,
        limit: None,
        required: &none,
        reach: Reach::Any,
        client_ip: None,
        charged_to: ClientKey::Peer(None),
    };
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match engine.verify(secret.expose_secret(), &request, Consistency::Bounded).await {
            Ok(answer) if answer.verdict == Verdict::Valid => return Ok((engine, secret)),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
