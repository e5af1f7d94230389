//! Builds everything that a server has, in the order in which each part needs the ones before it. Called by `run`.
//! Opens no listener and reaches no database.

use std::sync::Arc;

use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};

use super::config::{ServeError, ServerConfig};
use super::readiness;
use super::running::Running;
use crate::admission::fair_limiter::FairLimiter;
use crate::admission::hash_pool::HashPool;
use crate::admission::request_memory::RequestLimiter;
use crate::admission::response_memory::ResponseMemory;
use crate::api::console::Site;
use crate::api::context::Context;
use crate::api::drain::{DrainSignal, DrainTrigger};
use crate::api::grpc::{
    CallDispatcher, ConcurrencyLimit, ExtAuthz, GrpcWeb, LoginApi, MAX_CHECK_BYTES, Methods, Reflected,
    Reflection, ReservedBody, TokenApi, envoy,
};
use crate::api::health::{self, Health};
use crate::api::http::integrations::Integrations;
use crate::api::limits::MAX_REQUEST_BYTES;
use crate::api::{grpc, proto};
use crate::auth::sessions::Sessions;
use crate::changefeed::announce;
use crate::changefeed::hub::Hub;
use crate::clock;
use crate::jobs::reload;
use crate::metrics::{Metrics, Task};
use crate::runtime::tasks::Tasks;
use crate::secret::CurrentKeyring;
use crate::store::{Connector, Purpose, Store};
use crate::tokens::Actions;
use crate::verify::mac_refresh::Suggestions;
use crate::verify::{Engine, EngineConfig, mac_refresh};

/// The most open calls of reflection: each may hold unread descriptors of about 200 KiB.
const MAX_REFLECTIONS: usize = 32;

/// The memory, in bytes, of all requests that are not answered yet, and of the connections of
/// unauthenticated clients.
const REQUEST_BYTES: usize = 32 << 20;

/// A server that has no listener yet.
pub(super) struct Wired {
    pub(super) running: Running,
    pub(super) draining: DrainSignal,
    /// Answers the calls of the gRPC port.
    pub(super) calls: CallDispatcher,
    pub(super) integrations: Arc<Integrations>,
    pub(super) requests: RequestLimiter,
}

/// What the engine, the actions and the jobs share.
struct Shared<'a> {
    config: &'a ServerConfig,
    store: Store,
    keyring: Arc<CurrentKeyring>,
    metrics: Arc<Metrics>,
}

/// Builds everything. The console's site is given where its listener is open.
pub(super) fn wire(config: &ServerConfig, site: Option<&Site>) -> Result<Wired, ServeError> {
    let shared = Shared {
        config,
        store: Store::new(config.database.clone(), config.database_connections),
        keyring: Arc::new(CurrentKeyring::new(Arc::clone(&config.keyring))),
        metrics: Arc::new(Metrics::new()?),
    };
    let (engine, suggestions) = shared.engine();
    let context = shared.context(&engine);
    let health = Health::default();
    let jobs = shared.early_jobs(&context, suggestions, &health);
    let hub = Arc::new(shared.hub(&engine));
    let api = Arc::new(TokenApi {
        hub: Arc::clone(&hub),
        keyring: Arc::clone(&shared.keyring),
        context: context.clone(),
        console: site.map(Site::link),
    });
    let integrations = Arc::new(Integrations { context, config: Arc::new(config.integrations.clone()) });
    let requests = RequestLimiter::new(
        REQUEST_BYTES,
        config.limits.timeouts.message,
        shared.metrics.work.requests.clone(),
    );
    let sessions = Arc::new(Sessions::new(shared.store.clone(), Arc::clone(&engine)));
    let calls = services(config, &integrations, (&api, &sessions), &health, requests.clone())?;
    let (end, draining) = DrainTrigger::new();
    let Shared { store, keyring, metrics, .. } = shared;
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
    Ok(Wired { running, draining, calls, integrations, requests })
}

impl Shared<'_> {
    /// Starts the engine; the second value has the MACs that it would replace.
    fn engine(&self) -> (Arc<Engine>, Suggestions) {
        let (refresh, suggestions) = mac_refresh::queue();
        let engine = Engine::start(EngineConfig {
            store: self.store.clone(),
            connector: self.store.connector(),
            feed_connector: self.following(),
            keyring: Arc::clone(&self.keyring),
            prefix: self.config.prefix.clone(),
            hashing: HashPool::new(self.config.hash_permits, self.metrics.work.fallback.clone()),
            limit: self.config.durable_cost,
            refresh,
            bounds: self.config.bounds,
            cache_bytes: self.config.cache_bytes,
            replica: clock::random_uuid(),
            metrics: Arc::clone(&self.metrics),
        });
        (Arc::new(engine), suggestions)
    }

    /// Builds what the handlers of all APIs share.
    fn context(&self, engine: &Arc<Engine>) -> Context {
        let config = self.config;
        Context {
            engine: Arc::clone(engine),
            actions: Arc::new(Actions::new(
                self.store.clone(),
                Arc::clone(&self.keyring),
                config.prefix.clone(),
                config.durable_cost,
                HashPool::new(config.hash_permits, self.metrics.work.creation.clone()),
            )),
            callers: Arc::new(config.certificates.clone().into()),
            call_permits: FairLimiter::new(config.limits.calls),
            response_memory: Arc::new(ResponseMemory::new(
                config.limits.response_memory_bytes,
                self.store.connections_of(Purpose::Reads) / 3,
                self.metrics.work.response_memory.clone(),
            )),
            sampling: config.sampling,
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Starts the hub of watchers.
    fn hub(&self, engine: &Engine) -> Hub {
        let interval = self.config.bounds.max_staleness / 4;
        Hub::start(self.following(), engine.new_changes(), interval, Arc::clone(&self.metrics))
    }

    /// Returns a connector for what follows changes, past a pooler.
    fn following(&self) -> Connector {
        self.store.lines_by(self.config.direct().clone())
    }

    /// Starts the jobs that do not need an open database.
    fn early_jobs(&self, context: &Context, suggestions: Suggestions, health: &Health) -> Tasks {
        let mut jobs = Tasks::new(Arc::clone(&self.metrics));
        let refreshed = self.store.clone();
        jobs.keep(Task::MacRefresh, move || mac_refresh::run(suggestions.clone(), refreshed.clone()));
        let (changes, connector) = (context.engine.changes(), self.store.connector());
        jobs.keep(Task::Announce, move || announce::run(Arc::clone(&changes), connector.clone()));
        let (watched, probed, reported) = (Arc::clone(&context.engine), self.store.clone(), health.clone());
        jobs.keep(Task::Readiness, move || {
            readiness::run(Arc::clone(&watched), probed.clone(), reported.clone())
        });
        let targets = reload::Targets {
            tls: self.config.tls.clone(),
            keyring: Arc::clone(&self.keyring),
            callers: Arc::clone(&context.callers),
            store: self.store.clone(),
            health: health.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        let origins = self.config.origins.clone();
        jobs.keep(Task::Reload, move || reload::run(origins.clone(), targets.clone()));
        jobs
    }
}

/// Builds the services and the descriptors for reflection.
fn services(
    config: &ServerConfig,
    integrations: &Arc<Integrations>,
    (api, sessions): (&Arc<TokenApi>, &Arc<Sessions>),
    health: &Health,
    requests: RequestLimiter,
) -> Result<CallDispatcher, ServeError> {
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
    Ok(CallDispatcher::new(Arc::clone(api), routes.prepare(), methods, requests, !web.is_empty()))
}
