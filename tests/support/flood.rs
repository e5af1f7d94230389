//! Floods of every kind of call, by callers of all kinds and unauthenticated clients, against one
//! server: each kind alone or all together. Each caller continues until it is told to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokend::api::proto::revoke_token_request::Target;
use tokend::api::proto::{
    CreateTokenRequest, CreateTokenResponse, GetTokenRequest, ListTokensRequest, RevokeTokenRequest,
    RotateTokenRequest,
};
use tokio::runtime::{self, Runtime};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use super::client::{
    Client, bearing, created, created_with, forged, new_request_id, ordinary, renaming, revoked, rotated,
    rotation, texts, unknown_id,
};
use super::eventually;

/// How many calls a flood has open with each of its credentials.
const AT_ONCE: usize = 60;

/// A server, and a credential with all rights.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) root_secret: String,
}

impl Server {
    /// Returns a separate channel, which connects on first use.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.url.clone()).unwrap().connect_lazy()
    }

    /// Returns a client with this secret.
    pub(crate) fn client(&self, secret: &str) -> Client {
        bearing(self.channel(), &[&format!("Bearer {secret}")])
    }

    /// Returns a client with all rights.
    pub(crate) fn root(&self) -> Client {
        self.client(&self.root_secret)
    }
}

/// The call that a flood repeats.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// Revokes, by its secret, a token that is already revoked.
    RevokeAgain(String),
    /// Changes one of the caller's own tokens.
    Rename(String),
    /// Creates tokens.
    Create,
    /// Reads the longest page, or one token.
    Read(String),
    /// Rotates the calling token, and continues with its successor.
    RotateItself(Box<CreateTokenResponse>),
    /// Any call, with a wrong secret.
    Guess,
}

impl Call {
    async fn make(&mut self, server: &Server, client: &mut Client) -> bool {
        match self {
            Self::RevokeAgain(secret) => client.revoke_token(by_secret(secret)).await.is_ok(),
            Self::Rename(id) => client.update_token(renaming(id)).await.is_ok(),
            Self::Create => client.create_token(ordinary()).await.is_ok(),
            Self::Read(id) => {
                let page = ListTokensRequest { page_size: 1000, ..Default::default() };
                let one = GetTokenRequest { token_id: id.clone() };
                client.get_token(one).await.is_ok() && client.list_tokens(page).await.is_ok()
            }
            Self::RotateItself(token) => {
                let mut itself = server.client(&token.secret);
                let Ok(new) = itself.rotate_token(by_itself(&token.token.as_ref().unwrap().id)).await else {
                    return false;
                };
                let new = new.into_inner();
                **token = CreateTokenResponse { token: new.token, secret: new.secret };
                true
            }
            Self::Guess => {
                let bearer = format!("Bearer {}", forged(unknown_id()));
                let mut unauthenticated = bearing(server.channel(), &[&bearer]);
                unauthenticated.list_tokens(ListTokensRequest::default()).await.is_ok()
            }
        }
    }
}

fn by_secret(secret: &str) -> RevokeTokenRequest {
    let target = Some(Target::Secret(secret.to_owned()));
    RevokeTokenRequest { target, only_this: true, ..Default::default() }
}

fn by_itself(id: &str) -> RotateTokenRequest {
    let grace = prost_types::Duration { seconds: 3600, nanos: 0 };
    RotateTokenRequest { grace_period: Some(grace), request_id: new_request_id(), ..rotation(id) }
}

/// Returns a runtime for the clients of a flood, with the lowest priority: in production they run on
/// other machines, so their work must not count as the server's. Call `shutdown_background` at the end.
pub(crate) fn low_priority_runtime() -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(|| rustix::process::setpriority_process(None, 19).unwrap())
        .build()
        .unwrap()
}

/// Calls that are repeated until the flood ends.
pub(crate) struct Flood {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Starts the flood: each of these calls runs `AT_ONCE` times concurrently.
    pub(crate) async fn begin(server: &Arc<Server>, calls: &[(Client, Call)]) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut callers = Vec::new();
        for (client, call) in calls {
            // A token can be rotated only once: these callers have one token each.
            let times = if matches!(call, Call::RotateItself(_)) { 1 } else { AT_ONCE };
            for _ in 0..times {
                let (mut client, mut call, server) = (client.clone(), call.clone(), Arc::clone(server));
                let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
                callers.push(tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        call.make(&server, &mut client).await;
                        answered.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                }));
            }
        }
        let flood = Self { over, answered, callers };
        eventually("the flood has begun", async || {
            (flood.answered.load(Ordering::Relaxed) > 50).then_some(())
        })
        .await;
        flood
    }

    pub(crate) async fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// The calls of one kind of caller, with their clients.
pub(crate) type Calls = Vec<(Client, Call)>;

/// Creates callers of every kind, with the kind's name.
pub(crate) async fn kinds(server: &Server) -> Vec<(&'static str, Calls)> {
    let mut root = server.root();
    let holders = generations(server).await;
    let mut writers = Vec::new();
    for user_id in ["w1", "w2", "w3"] {
        let writer = of_user(&mut root, user_id, &["tokend:write", "tokend:read"]).await;
        let own = of_user(&mut root, user_id, &[]).await.token.unwrap().id;
        let client = server.client(&writer.secret);
        writers.push((client.clone(), Call::Rename(own)));
        writers.push((client, Call::Create));
    }
    let mut readers = Vec::new();
    for user_id in ["r1", "r2", "r3"] {
        let reader = created_with(&mut root, "", &["tokend:read"]).await;
        let reader =
            if user_id == "r1" { reader } else { of_user(&mut root, user_id, &["tokend:read"]).await };
        let id = reader.token.as_ref().unwrap().id.clone();
        readers.push((server.client(&reader.secret), Call::Read(id)));
    }
    let mut rotators = Vec::new();
    for number in 0..AT_ONCE {
        let token = of_user(&mut root, &format!("s{}", number % 4), &[]).await;
        rotators.push((server.client(&token.secret), Call::RotateItself(token.into())));
    }
    vec![
        ("revocations of what is revoked", holders),
        ("writers", writers),
        ("readers", readers),
        ("rotations of tokens by themselves", rotators),
        ("strangers", vec![(server.root(), Call::Guess)]),
    ]
}

/// A token without scopes, rotated by itself until five of its family are valid at once; and a
/// revoked one of the same user.
async fn generations(server: &Server) -> Calls {
    let mut root = server.root();
    let request = CreateTokenRequest { user_id: "mallory".to_owned(), ..ordinary() };
    let gone = created(&mut root, request.clone()).await;
    revoked(&mut root, &gone.token.unwrap().id, "").await;
    let mut last = created(&mut root, request).await;
    let mut callers = vec![server.client(&last.secret)];
    for _ in 0..4 {
        let id = last.token.unwrap().id;
        let new = rotated(&mut server.client(&last.secret), by_itself(&id)).await;
        last = CreateTokenResponse { token: new.token, secret: new.secret };
        callers.push(server.client(&last.secret));
    }
    callers.into_iter().map(|caller| (caller, Call::RevokeAgain(gone.secret.clone()))).collect()
}

async fn of_user(root: &mut Client, user_id: &str, scopes: &[&str]) -> CreateTokenResponse {
    let scopes = texts(scopes);
    let user_id = user_id.to_owned();
    created(root, CreateTokenRequest { user_id, organization_id: "acme".to_owned(), scopes, ..ordinary() })
        .await
}
