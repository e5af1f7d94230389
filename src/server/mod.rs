//! The composition root: builds store, engine, actions, jobs and listeners, and runs them from
//! the first connection to the last response. Called by `tokend serve` and by the tests.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};

mod config;
mod console;
mod opening;
mod readiness;

pub use config::{Limits, Listeners, ServeError, ServerConfig, Timeouts};

use crate::admission::fair_limiter::FairLimiter;
use crate::admission::hash_pool::HashPool;
use crate::admission::request_memory::RequestLimiter;
use crate::admission::response_memory::ResponseMemory;
use crate::api::console::Site;
use crate::api::context::Context;
use crate::api::drain::{DrainSignal, DrainTrigger};
use crate::api::grpc::{
    ConcurrencyLimit, ConnectionLimits, Direct, ExtAuthz, GrpcWeb, LoginApi, MAX_CHECK_BYTES, Methods,
    Reflected, Reflection, ReservedBody, TokenApi, envoy,
};
use crate::api::health::{self, Health};
use crate::api::http::integrations::Integrations;
use crate::api::limits::MAX_REQUEST_BYTES;
use crate::api::{self, grpc, http, proto};
use crate::auth::sessions::Sessions;
use crate::changefeed::announce;
use crate::changefeed::hub::Hub;
use crate::clock;
use crate::jobs::{last_use, purge, reload, retention, seal};
use crate::metrics::{Metrics, Task};
use crate::runtime::tasks::Tasks;
use crate::secret::CurrentKeyring;
use crate::store::{Purpose, Store};
use crate::tokens::Actions;
use crate::transport::listener::{self, OverLimit};
use crate::transport::tls::Protocol;
use crate::verify::mac_refresh::Suggestions;
use crate::verify::{Engine, EngineConfig, mac_refresh};

/// The most open calls of reflection: each may hold unread descriptors of about 200 KiB.
const MAX_REFLECTIONS: usize = 32;

/// The memory, in bytes, of all requests that are not answered yet, and of the connections of
/// unauthenticated clients.
const REQUEST_BYTES: usize = 32 << 20;

/// How long the last writes may take.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Everything that lives as long as the server.
struct Running {
    store: Store,
    keyring: Arc<CurrentKeyring>,
    engine: Arc<Engine>,
    hub: Arc<Hub>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    health: Health,
    jobs: Tasks,
    /// Writes the last use of tokens. Not one of the jobs, since it ends after the last call.
    flushing: Option<(watch::Sender<()>, Tasks)>,
    draining: DrainTrigger,
}

/// Serves until `shutdown` completes, then drains: health says `NOT_SERVING`, no new
/// connection is taken, and calls that run may end within the drain timeout.
///
/// Listens at once; until Postgres has been reached and its schema checked, calls are answered
/// `UNAVAILABLE` and health says `NOT_SERVING`.
///
/// # Errors
/// [`ServeError`]; an unreachable Postgres is waited for, not an error.
pub async fn run(
    config: ServerConfig,
    listeners: impl Into<Listeners>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let Listeners { grpc, http, console } = listeners.into();
    let timeouts = config.limits.timeouts;
    let site = console.as_ref().map(|listener| console::site(&config, listener));
    let (mut running, draining, service, integrations, requests) = wire(&config, site.as_ref())?;
    let metrics = || Arc::clone(&running.metrics);
    let tls = |protocol| config.tls.clone().map(|tls| (tls, protocol));
    let limits = |over_limit| listener::Limits {
        most: config.limits.connections,
        idle: timeouts.idle,
        age: timeouts.age,
        over_limit,
    };
    let mut serving_http = JoinSet::new();
    if let Some(listener) = http {
        let (tls, limits) = (tls(Protocol::Http), limits(OverLimit::Probes));
        let incoming = listener::accept(listener, tls, limits, &requests, metrics());
        let sources = http::listener::Sources {
            metrics: metrics(),
            engine: Arc::clone(&running.engine),
            store: running.store.clone(),
            health: running.health.clone(),
            response_memory: Arc::clone(&integrations.context.response_memory),
            requests: requests.clone(),
        };
        // Not one of the jobs: it continues to serve while calls are drained.
        let integrations = Arc::clone(&integrations);
        serving_http.spawn(async move {
            http::listener::serve(incoming, sources, integrations, timeouts.head).await;
            "HTTP"
        });
    }
    if let Some((listener, site)) = console.zip(site) {
        let followed = (Arc::clone(&running.hub), Arc::clone(&running.keyring));
        let sessions = Arc::clone(&running.sessions);
        let console = console::build(&config, sessions, integrations, site, followed);
        let (tls, limits) = (tls(Protocol::Http), limits(OverLimit::Wait));
        let incoming = listener::accept(listener, tls, limits, &requests, metrics());
        let requests = requests.clone();
        serving_http.spawn(async move {
            api::console::listener::serve(incoming, console, requests, timeouts.head).await;
            "console"
        });
    }
    let http_ended = ended(&mut serving_http);
    tokio::pin!(http_ended);
    let incoming = listener::accept(grpc, tls(Protocol::Grpc), limits(OverLimit::Wait), &requests, metrics());
    // Browsers use HTTP/1 where there is no TLS.
    let http1 = !config.integrations.web_origins.is_empty();
    let transport = ConnectionLimits {
        streams: config.limits.streams,
        http1,
        head: timeouts.head,
        age_grace: timeouts.age_grace,
    };
    let serving = grpc::serve(incoming, service, transport, draining.wait());
    tokio::pin!(serving);

    let opening = opening::open(&config, running.store.clone(), running.health.clone());
    tokio::pin!(opening);
    let shutdown = async move {
        shutdown.await;
        tracing::info!("draining");
    };
    tokio::pin!(shutdown);

    let opened = tokio::select! {
        opened = &mut opening => Some(opened?),
        () = &mut serving => return Err(ServeError::Ended("gRPC")),
        name = &mut http_ended => return Err(ServeError::Ended(name)),
        () = &mut shutdown => None,
    };
    if opened.is_some() {
        running.begin(&config);
        tokio::select! {
            () = &mut serving => return Err(ServeError::Ended("gRPC")),
            name = &mut http_ended => return Err(ServeError::Ended(name)),
            () = &mut shutdown => {}
        }
    }

    running.drain();
    tokio::select! {
        () = &mut serving => {}
        () = tokio::time::sleep(config.drain_timeout) => {
            tracing::warn!("calls were still running at the end of the drain timeout; they are cut off");
        }
    }
    running.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a task that never ends by itself, and returns its name; never completes if there is none.
async fn ended(tasks: &mut JoinSet<&'static str>) -> &'static str {
    match tasks.join_next().await {
        Some(ended) => ended.unwrap_or("HTTP"),
        None => pending().await,
    }
}

/// Builds everything.
fn wire(
    config: &ServerConfig,
    site: Option<&Site>,
) -> Result<(Running, DrainSignal, Direct, Arc<Integrations>, RequestLimiter), ServeError> {
    let metrics = Arc::new(Metrics::new()?);
    let store = Store::new(config.database.clone(), config.database_connections);
    let keyring = Arc::new(CurrentKeyring::new(Arc::clone(&config.keyring)));
    let following = || store.lines_by(config.direct().clone());
    let (refresh, suggestions) = mac_refresh::queue();
    let engine = Arc::new(Engine::start(EngineConfig {
        store: store.clone(),
        connector: store.connector(),
        feed_connector: following(),
        keyring: Arc::clone(&keyring),
        prefix: config.prefix.clone(),
        hashing: HashPool::new(config.hash_permits, metrics.work.fallback.clone()),
        limit: config.durable_cost,
        refresh,
        bounds: config.bounds,
        cache_bytes: config.cache_bytes,
        replica: clock::random_uuid(),
        metrics: Arc::clone(&metrics),
    }));
    let actions = Arc::new(Actions::new(
        store.clone(),
        Arc::clone(&keyring),
        config.prefix.clone(),
        config.durable_cost,
        HashPool::new(config.hash_permits, metrics.work.creation.clone()),
    ));
    let context = Context {
        engine: Arc::clone(&engine),
        actions,
        callers: Arc::new(config.certificates.clone().into()),
        call_permits: FairLimiter::new(config.limits.calls),
        response_memory: Arc::new(ResponseMemory::new(
            config.limits.response_memory_bytes,
            store.connections_of(Purpose::Reads) / 3,
            metrics.work.response_memory.clone(),
        )),
        sampling: config.sampling,
        metrics: Arc::clone(&metrics),
    };
    let health = Health::default();
    let (end, draining) = DrainTrigger::new();

    let mut jobs = Tasks::new(Arc::clone(&metrics));
    keep_early_jobs(&mut jobs, suggestions, &store, &engine, &health);
    let targets = reload::Targets {
        tls: config.tls.clone(),
        keyring: Arc::clone(&keyring),
        callers: Arc::clone(&context.callers),
        store: store.clone(),
        health: health.clone(),
        metrics: Arc::clone(&metrics),
    };
    let origins = config.origins.clone();
    jobs.keep(Task::Reload, move || reload::run(origins.clone(), targets.clone()));

    let hub = Arc::new(Hub::start(
        following(),
        engine.new_changes(),
        config.bounds.max_staleness / 4,
        Arc::clone(&metrics),
    ));
    let api = Arc::new(TokenApi {
        hub: Arc::clone(&hub),
        keyring: Arc::clone(&keyring),
        context: context.clone(),
        console: site.map(Site::link),
    });
    let integrations = Arc::new(Integrations { context, config: Arc::new(config.integrations.clone()) });
    let requests =
        RequestLimiter::new(REQUEST_BYTES, config.limits.timeouts.message, metrics.work.requests.clone());
    let sessions = Arc::new(Sessions::new(store.clone(), Arc::clone(&engine)));
    let service = services(config, &integrations, (&api, &sessions), &health, requests.clone())?;
    let running = Running {
        store,
        keyring,
        engine,
        hub,
        sessions,
        metrics,
        health,
        jobs,
        flushing: None,
        draining: end,
    };
    Ok((running, draining, service, integrations, requests))
}

/// Builds the services and the descriptors for reflection.
fn services(
    config: &ServerConfig,
    integrations: &Arc<Integrations>,
    (api, sessions): (&Arc<TokenApi>, &Arc<Sessions>),
    health: &Health,
    requests: RequestLimiter,
) -> Result<Direct, ServeError> {
    let mut contracts = vec![
        (proto::FILE_DESCRIPTOR_SET, MAX_REQUEST_BYTES),
        (health::proto::FILE_DESCRIPTOR_SET, MAX_REQUEST_BYTES),
    ];
    if config.integrations.ext_authz {
        contracts.push((envoy::FILE_DESCRIPTOR_SET, MAX_CHECK_BYTES));
    }
    let reflection =
        [(v1::FILE_DESCRIPTOR_SET, MAX_REQUEST_BYTES), (v1alpha::FILE_DESCRIPTOR_SET, MAX_REQUEST_BYTES)];
    let all = || contracts.iter().chain(&reflection);
    let methods = all()
        .try_fold(Methods::default(), |methods, (descriptors, most)| methods.add(descriptors, *most))?
        .reporting_too_long(grpc::CHECK);
    let reflected = Reflected::default().with(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    let reflected = all().try_fold(reflected, |reflected, (descriptors, _)| reflected.with(descriptors))?;
    let reflection = Reflection::from(reflected);
    let curious = FairLimiter::new(MAX_REFLECTIONS);
    // A health watch stays open as long as its connection, and most connections have one.
    let watchers = FairLimiter::new(config.limits.connections);
    let current = v1::server_reflection_server::ServerReflectionServer::new(reflection.clone());
    let older = v1alpha::server_reflection_server::ServerReflectionServer::new(reflection);
    let mut routes = Routes::new(ConcurrencyLimit::new(health.server(), watchers))
        .add_service(ConcurrencyLimit::new(current, curious.clone()))
        .add_service(ConcurrencyLimit::new(older, curious));
    let web = &*config.integrations.web_origins;
    routes = match web {
        [] => routes.add_service(ReservedBody::new(api.server())),
        origins => routes.add_service(ReservedBody::new(GrpcWeb::new(api.server(), origins))),
    };
    let login = LoginApi { api: Arc::clone(api), sessions: Arc::clone(sessions) };
    routes = routes.add_service(ReservedBody::new(login.server()));
    if config.integrations.ext_authz {
        routes = routes.add_service(ExtAuthz::server(Arc::clone(integrations)));
    }
    Ok(Direct::new(Arc::clone(api), routes.prepare(), methods, requests, !web.is_empty()))
}

/// Starts the jobs that do not need an open database.
fn keep_early_jobs(
    jobs: &mut Tasks,
    suggestions: Suggestions,
    store: &Store,
    engine: &Arc<Engine>,
    health: &Health,
) {
    let refreshed = store.clone();
    jobs.keep(Task::MacRefresh, move || mac_refresh::run(suggestions.clone(), refreshed.clone()));
    let (changes, connector) = (engine.changes(), store.connector());
    jobs.keep(Task::Announce, move || announce::run(Arc::clone(&changes), connector.clone()));
    let (watched, probed, health) = (Arc::clone(engine), store.clone(), health.clone());
    jobs.keep(Task::Readiness, move || readiness::run(Arc::clone(&watched), probed.clone(), health.clone()));
}

impl Running {
    /// Starts what needs the database, once it is open.
    fn begin(&mut self, config: &ServerConfig) {
        self.engine.wake();
        let (engine, store, metrics) =
            (Arc::clone(&self.engine), self.store.clone(), Arc::clone(&self.metrics));
        let (end, ended) = watch::channel(());
        let mut flushing = Tasks::new(Arc::clone(&metrics));
        let (flushed, interval) = (store.clone(), config.last_use_interval);
        flushing.keep(Task::LastUse, move || {
            let (engine, metrics) = (Arc::clone(&engine), Arc::clone(&metrics));
            last_use::run(engine, flushed.clone(), metrics, interval, ended.clone())
        });
        self.flushing = Some((end, flushing));
        let (sealed, keyring, counted) =
            (store.clone(), Arc::clone(&self.keyring), Arc::clone(&self.metrics));
        self.jobs
            .keep(Task::Seal, move || seal::run(sealed.clone(), Arc::clone(&keyring), Arc::clone(&counted)));
        let (kept, retention) = (store.clone(), config.retention.clone());
        self.jobs.keep(Task::Retention, move || retention::run(kept.clone(), retention.clone()));
        self.jobs.keep(Task::Purge, move || purge::run(store.clone()));
    }

    fn drain(&mut self) {
        self.jobs.abort_all();
        self.health.not_serving("shutting down");
        self.draining.drain();
    }

    async fn close(self) {
        let last = async {
            if let Some((end, mut flushing)) = self.flushing {
                drop(end);
                flushing.finished().await;
            }
            self.store.close().await;
        };
        let _ = tokio::time::timeout(LAST_WRITES, last).await;
    }
}
