//! The listeners: accept a limited number of connections, and pass them on after their handshake. Called by the server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::connection::{Connection, Cutoff, Permits, ended_by};
use super::handshake::Handshake;
use super::tls::{Protocol, ServerTls};
use crate::admission::fair_limiter::{FairLimiter, Refused};
use crate::admission::request_memory::RequestLimiter;
use crate::clock;
use crate::domain::PeerNetwork;
use crate::metrics::{Counted, Metrics, Task};
use crate::runtime::tasks::Tasks;

/// The pause after the operating system refused a connection because no file descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many accepted connections may wait to be served.
const MAX_READY: usize = 64;

/// How many connections beyond the limit a listener for probes accepts: one more ends the oldest of them.
const OVER_LIMIT: usize = 16;

/// How long an evicted connection may take to end before another one is evicted.
const EVICTED_ENDS: Duration = Duration::from_secs(1);

/// The limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections at once.
    pub most: usize,
    /// How long a connection may be without a call.
    pub idle: Duration,
    /// The maximum age of a connection, a tenth more or less; `None`: unlimited.
    pub age: Option<Duration>,
    /// What happens to those beyond the limit.
    pub over_limit: OverLimit,
}

/// What happens to connections beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLimit {
    /// They wait in the operating system's queue.
    Wait,
    /// A few are accepted for a short time each, for probes.
    Probes,
}

/// The accepted connections.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::Receiver<Connection>,
    _accepting: Tasks,
}

/// Accepts connections on `listener` up to the limits; no address may have nearly all of them. Where they are reached,
/// a connection of an unauthenticated peer is closed for a new one.
/// Ends, and closes the listener, when the result is dropped.
pub fn accept(
    listener: TcpListener,
    tls: Option<(Arc<ServerTls>, Protocol)>,
    limits: Limits,
    requests: &RequestLimiter,
    metrics: Arc<Metrics>,
) -> Incoming {
    let (sender, receiver) = mpsc::channel(MAX_READY);
    let (listener, permits) = (Arc::new(listener), Arc::new(Semaphore::new(limits.most)));
    let shares = FairLimiter::lenient(limits.most);
    let requests = requests.for_listener();
    let mut accepting = Tasks::new(Arc::clone(&metrics));
    let begin = Begin { handshake: Handshake { tls, idle: limits.idle, requests, metrics }, age: limits.age };
    accepting.keep(Task::Accept, move || {
        let gate = Acceptor {
            permits: Arc::clone(&permits),
            shares: shares.clone(),
            requests: begin.handshake.requests.clone(),
            over_limit: limits.over_limit,
            latest: VecDeque::new(),
        };
        accept_all(Arc::clone(&listener), gate, begin.clone(), sender.clone())
    });
    Incoming { receiver, _accepting: accepting }
}

/// How accepted connections begin.
#[derive(Clone)]
struct Begin {
    handshake: Handshake,
    age: Option<Duration>,
}

/// Decides which connections are accepted.
struct Acceptor {
    permits: Arc<Semaphore>,
    shares: FairLimiter<PeerNetwork>,
    requests: RequestLimiter,
    over_limit: OverLimit,
    /// The latest connections accepted beyond the limit; each ends when its sender is dropped.
    latest: VecDeque<oneshot::Sender<Infallible>>,
}

impl Acceptor {
    /// Admits a connection from this address once the limits allow it; `None` if its address has its share.
    async fn admit(&mut self, address: IpAddr) -> Option<(Option<Permits>, Option<Cutoff>)> {
        let refused = match self.shares.take(address.into()) {
            Ok(share) => match Arc::clone(&self.permits).try_acquire_owned() {
                Ok(permit) => return Some((Some((permit, share)), None)),
                Err(_) => Refused::Full,
            },
            Err(refused) => refused,
        };
        while self.requests.evict_for_another(address) {
            let ended = Arc::clone(&self.permits).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(EVICTED_ENDS, ended).await {
                let mut share = self.shares.empty(address.into());
                share.overdraw(1);
                return Some((Some((permit, share)), None));
            }
        }
        match (self.over_limit, refused) {
            (OverLimit::Wait, Refused::OverShare) => return None,
            (OverLimit::Wait, Refused::Full) => {
                let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
                let share = self.shares.take(address.into()).ok()?;
                return Some((Some((permit, share)), None));
            }
            (OverLimit::Probes, _) => {}
        }
        let (keep, cutoff) = oneshot::channel();
        self.latest.push_back(keep);
        if self.latest.len() > OVER_LIMIT {
            self.latest.pop_front();
        }
        Some((None, Some(cutoff)))
    }
}

async fn accept_all(
    listener: Arc<TcpListener>,
    mut gate: Acceptor,
    how: Begin,
    sender: mpsc::Sender<Connection>,
) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some((permits, mut cutoff)) = gate.admit(address.ip()).await else {
            how.handshake.metrics.work.connection_refused();
            tracing::debug!(%address, "a connection was refused because its address has its share");
            continue;
        };
        let (how, sender) = (how.clone(), sender.clone());
        tokio::spawn(async move {
            let opened = ended_by(cutoff.as_mut(), how.handshake.open(stream, address)).await;
            if let Some(Some(opened)) = opened {
                let counted = Counted::new(how.handshake.metrics.work.connections());
                let due = how.age.map(|age| Instant::now() + clock::about(age));
                let connection = Connection::new(opened, cutoff, due, permits, counted);
                let _ = sender.send(connection).await;
            }
        });
    }
}

impl Incoming {
    /// Waits for the next connection; `None` once nothing is accepted any more.
    pub async fn next(&mut self) -> Option<Connection> {
        self.receiver.recv().await
    }
}
