//! Clients that verify limited tokens on several replicas without a pause, by single calls and by streams, and count each
//! answer VALID in the accounts of its limits. Used by the fault test of limits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use tokend::api::proto::{Verdict, VerifyRequest, VerifyResponse, VerifyStreamRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::limit_count::{Account, Admission, Nanos, since};
use super::setup::Made;
use super::witness::wall;
use crate::support::client::{Client, question};

/// The clients of each replica that make single calls, and the requests under way in each stream.
const CALLERS: u64 = 6;
const WINDOW: usize = 12;

/// A token with a plan.
#[derive(Debug)]
pub(crate) struct Limited {
    made: RwLock<Made>,
    pub(crate) accounts: Vec<Arc<Account>>,
    /// When it must be refused from, in nanoseconds since 1970.
    effective_time: OnceLock<i128>,
}

impl Limited {
    pub(crate) fn new(made: Made, accounts: Vec<Arc<Account>>) -> Self {
        Self { made: RwLock::new(made), accounts, effective_time: OnceLock::new() }
    }

    pub(crate) fn made(&self) -> Made {
        self.made.read().unwrap().clone()
    }

    /// Continues with its successor.
    pub(crate) fn succeeded_by(&self, made: Made) {
        *self.made.write().unwrap() = made;
    }

    /// Notes from when on it must not be VALID.
    pub(crate) fn is_revoked(&self, effective_time: i128) {
        self.effective_time.set(effective_time).unwrap();
    }
}

/// The tokens, the replicas and the totals.
#[derive(Debug)]
pub(crate) struct Load {
    began: Instant,
    tokens: Vec<Limited>,
    /// The replicas; none while one is down.
    doors: Vec<Mutex<Option<Client>>>,
    ended: AtomicBool,
    answers: AtomicU64,
    valid: AtomicU64,
    unavailable: AtomicU64,
    cut: AtomicU64,
}

/// A request under way.
struct Asked {
    token: usize,
    cost: u32,
    sent: Nanos,
    /// By the wall clock.
    time: i128,
}

impl Load {
    pub(crate) fn new(began: Instant, tokens: Vec<Limited>, clients: Vec<Client>) -> Arc<Self> {
        Arc::new(Self {
            began,
            tokens,
            doors: clients.into_iter().map(|client| Mutex::new(Some(client))).collect(),
            ended: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            valid: AtomicU64::new(0),
            unavailable: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        })
    }

    /// Starts the clients.
    pub(crate) fn start(self: &Arc<Self>) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for replica in 0..self.doors.len() {
            for number in 0..CALLERS {
                clients.spawn(call_on_and_on(Arc::clone(self), replica, number + 1));
            }
            clients.spawn(stream_on_and_on(Arc::clone(self), replica));
        }
        clients
    }

    pub(crate) fn tokens(&self) -> &[Limited] {
        &self.tokens
    }

    /// Sets the client of a replica; `None`: it is down.
    pub(crate) fn set_door(&self, replica: usize, client: Option<Client>) {
        *self.doors[replica].lock().unwrap() = client;
    }

    /// Has the clients end.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Returns the number of answers.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Returns the totals, for a person.
    pub(crate) fn shown(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (answers, valid, seconds) =
            (of(&self.answers), of(&self.valid), self.began.elapsed().as_secs_f64());
        let (unavailable, cut) = (of(&self.unavailable), of(&self.cut));
        format!(
            "{answers} answers in {seconds:.1} s: {valid} VALID, {unavailable} errors; {cut} were cut off"
        )
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    async fn door(&self, replica: usize) -> Option<Client> {
        while !self.has_ended() {
            if let Some(client) = self.doors[replica].lock().unwrap().clone() {
                return Some(client);
            }
            pause().await;
        }
        None
    }

    /// Chooses a token and a cost.
    fn ask(&self, random: &mut u64) -> (VerifyRequest, Asked) {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = usize::try_from(*random >> 33).unwrap();
        let (token, cost) = (number % self.tokens.len(), [1, 1, 1, 1, 2, 1, 5, 0][number / 1_024 % 8]);
        let request = VerifyRequest { cost: Some(cost), ..question(&self.tokens[token].made().secret, &[]) };
        (request, Asked { token, cost, sent: since(self.began), time: wall() })
    }

    /// Counts an answer.
    fn answered(&self, asked: &Asked, answer: &VerifyResponse) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if answer.verdict() != Verdict::Valid {
            return;
        }
        self.valid.fetch_add(1, Ordering::Relaxed);
        let token = &self.tokens[asked.token];
        let late = token.effective_time.get().is_some_and(|effective| asked.time > *effective);
        assert!(!late, "VALID after its revocation");
        let admission = Admission { sent: asked.sent, answered: since(self.began), cost: asked.cost };
        for account in token.accounts.iter().filter(|_| asked.cost > 0) {
            account.admit(admission);
        }
    }

    /// Counts an error. One that the server has answered has spent nothing.
    fn failed(&self, asked: &Asked, status: &Status) {
        if status.get_details_error_info().is_some() {
            self.answers.fetch_add(1, Ordering::Relaxed);
            self.unavailable.fetch_add(1, Ordering::Relaxed);
        } else {
            self.cut_off(asked);
        }
    }

    fn cut_off(&self, asked: &Asked) {
        self.cut.fetch_add(1, Ordering::Relaxed);
        for account in &self.tokens[asked.token].accounts {
            account.cut_off(asked.cost);
        }
    }
}

/// Slower than refusals arrive.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

async fn call_on_and_on(load: Arc<Load>, replica: usize, mut random: u64) {
    while let Some(mut client) = load.door(replica).await {
        let (request, asked) = load.ask(&mut random);
        match tokio::time::timeout(Duration::from_secs(8), client.verify(request)).await {
            Ok(Ok(answer)) => load.answered(&asked, answer.get_ref()),
            Ok(Err(status)) => {
                load.failed(&asked, &status);
                pause().await;
            }
            Err(_) => load.cut_off(&asked),
        }
    }
}

async fn stream_on_and_on(load: Arc<Load>, replica: usize) {
    let mut random = 1_000;
    while let Some(mut client) = load.door(replica).await {
        let (questions, requests) = mpsc::channel(WINDOW);
        let mut under_way = VecDeque::new();
        if let Ok(answers) = client.verify_stream(ReceiverStream::new(requests)).await {
            let mut answers = answers.into_inner();
            loop {
                while under_way.len() < WINDOW && !load.has_ended() {
                    let (request, asked) = load.ask(&mut random);
                    if questions.try_send(VerifyStreamRequest { request: Some(request) }).is_err() {
                        break;
                    }
                    under_way.push_back(asked);
                }
                if under_way.is_empty() {
                    break;
                }
                match tokio::time::timeout(Duration::from_secs(8), answers.message()).await {
                    Ok(Ok(Some(answer))) => {
                        let asked = under_way.pop_front().expect("a question before its answer");
                        load.answered(&asked, &answer.response.unwrap());
                    }
                    Ok(Err(status)) => {
                        // It is about the first one; the others may have been judged.
                        if let Some(asked) = under_way.pop_front() {
                            load.failed(&asked, &status);
                        }
                        break;
                    }
                    Ok(Ok(None)) | Err(_) => break,
                }
            }
        }
        for asked in &under_way {
            load.cut_off(asked);
        }
        if !under_way.is_empty() {
            pause().await;
        }
    }
}
