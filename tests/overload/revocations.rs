//! An administrator's revocation while others flood the replica: with revocations of what is revoked already, with
//! changes, with pages, with rotations of themselves, with secrets that are none; each alone, then all together. What
//! it takes beside what it takes on a quiet replica is for a person to read; that none is refused is demanded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokend::grpc::proto::revoke_token_request::Target;
use tokend::grpc::proto::{
    CreateTokenRequest, CreateTokenResponse, DisableTokenRequest, GetTokenRequest, ListTokensRequest,
    RevokeTokenRequest, RotateTokenRequest,
};
use tokio::task::JoinHandle;

use crate::support::client::{
    Client, bearing, created, created_with, forged, new_request_id, ordinary, renaming, revocation, revoked,
    rotated, rotation, unknown_id,
};
use crate::support::crowd::tokens_of_all_sorts;
use crate::support::eventually;
use crate::support::replica::{Installation, Replica};

/// How many calls a flood has under way with each of its credentials.
const AT_ONCE: usize = 60;

/// How many revocations are measured in each flood.
const MEASURED: usize = 12;

/// What a flood asks for, again and again.
#[derive(Debug, Clone)]
enum Call {
    /// To revoke, by its secret, what is revoked already.
    RevokeAgain(String),
    /// To change a token of its own.
    Rename(String),
    /// To make tokens.
    Create,
    /// The longest page, or one token.
    Read(String),
    /// To put another token in the place of the one that asks, and to go on with that.
    RotateItself(Box<CreateTokenResponse>),
    /// Anything, with a secret that is none.
    Guess,
}

impl Call {
    async fn make(&mut self, replica: &Replica, client: &mut Client) -> bool {
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
                let mut itself = replica.client(&token.secret);
                let Ok(new) = itself.rotate_token(by_itself(&token.token.as_ref().unwrap().id)).await else {
                    return false;
                };
                let new = new.into_inner();
                **token = CreateTokenResponse { token: new.token, secret: new.secret };
                true
            }
            Self::Guess => {
                let bearer = format!("Bearer {}", forged(unknown_id()));
                let mut stranger = bearing(replica.channel(), &[&bearer]);
                stranger.list_tokens(ListTokensRequest::default()).await.is_ok()
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

/// Calls that are made again and again until it ends.
struct Flood {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    callers: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Begins: each of these is asked for `AT_ONCE` times at once.
    async fn begin(replica: &Arc<Replica>, calls: &[(Client, Call)]) -> Self {
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut callers = Vec::new();
        for (client, call) in calls {
            // A rotation is one of one token: those have a token for each.
            let times = if matches!(call, Call::RotateItself(_)) { 1 } else { AT_ONCE };
            for _ in 0..times {
                let (mut client, mut call, replica) = (client.clone(), call.clone(), Arc::clone(replica));
                let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
                callers.push(tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        call.make(&replica, &mut client).await;
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

    async fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// Revokes these tokens one after the other, each fifth by disabling it first; returns how long one of them took, and
/// the longest.
async fn revocations(admin: &mut Client, victims: &[String], what: &str) -> (Duration, Duration) {
    let mut took = Vec::new();
    for (number, id) in victims.iter().enumerate() {
        if number % 5 == 0 {
            let disabled =
                admin.disable_token(DisableTokenRequest { token_id: id.clone(), ..Default::default() }).await;
            assert!(disabled.is_ok(), "disabling during {what}: {disabled:?}");
        }
        let began = Instant::now();
        let done = admin.revoke_token(revocation(id, "leaked")).await;
        took.push(began.elapsed());
        assert!(done.is_ok(), "revocation {number} during {what}: {done:?}");
    }
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() - 1])
}

async fn victims(admin: &mut Client) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..MEASURED {
        ids.push(created(admin, ordinary()).await.token.unwrap().id);
    }
    ids
}

#[expect(clippy::print_stderr, reason = "what was measured is for a person")]
fn tell(what: &str, (usual, longest): (Duration, Duration), beside: u64) {
    eprintln!("{what}: {usual:.1?}, the longest {longest:.1?}, beside {beside} answers");
}

/// A token without any scope, rotated by itself until five of it are good at once; and one of the same user that has
/// been revoked.
async fn generations(replica: &Replica) -> Vec<(Client, Call)> {
    let mut root = replica.root();
    let request = CreateTokenRequest { user_id: "mallory".to_owned(), ..ordinary() };
    let gone = created(&mut root, request.clone()).await;
    revoked(&mut root, &gone.token.unwrap().id, "").await;
    let mut last = created(&mut root, request).await;
    let mut callers = vec![replica.client(&last.secret)];
    for _ in 0..4 {
        let id = last.token.unwrap().id;
        let new = rotated(&mut replica.client(&last.secret), by_itself(&id)).await;
        last = CreateTokenResponse { token: new.token, secret: new.secret };
        callers.push(replica.client(&last.secret));
    }
    callers.into_iter().map(|caller| (caller, Call::RevokeAgain(gone.secret.clone()))).collect()
}

async fn of_user(root: &mut Client, user_id: &str, scopes: &[&str]) -> CreateTokenResponse {
    let scopes = crate::support::client::texts(scopes);
    let user_id = user_id.to_owned();
    created(root, CreateTokenRequest { user_id, organization_id: "acme".to_owned(), scopes, ..ordinary() })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flood_keeps_an_administrators_revocation_out() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.database_connections = 16;
    let replica = Arc::new(installation.serve(config).await);
    tokens_of_all_sorts(&installation.database).await;
    let (mut root, mut admin) = (replica.root(), replica.root());

    let holders = generations(&replica).await;
    let mut writers = Vec::new();
    for user_id in ["w1", "w2", "w3"] {
        let writer = of_user(&mut root, user_id, &["tokend:write", "tokend:read"]).await;
        let own = of_user(&mut root, user_id, &[]).await.token.unwrap().id;
        let client = replica.client(&writer.secret);
        writers.push((client.clone(), Call::Rename(own)));
        writers.push((client, Call::Create));
    }
    let mut readers = Vec::new();
    for user_id in ["r1", "r2", "r3"] {
        let reader = created_with(&mut root, "", &["tokend:read"]).await;
        let reader =
            if user_id == "r1" { reader } else { of_user(&mut root, user_id, &["tokend:read"]).await };
        let id = reader.token.as_ref().unwrap().id.clone();
        readers.push((replica.client(&reader.secret), Call::Read(id)));
    }
    let mut rotators = Vec::new();
    for number in 0..AT_ONCE {
        let token = of_user(&mut root, &format!("s{}", number % 4), &[]).await;
        rotators.push((replica.client(&token.secret), Call::RotateItself(token.into())));
    }
    let strangers = vec![(replica.root(), Call::Guess)];

    let mut groups = Vec::new();
    for _ in 0..7 {
        groups.push(victims(&mut root).await);
    }
    let quiet = groups.pop().unwrap();
    tell("a quiet time", revocations(&mut admin, &quiet, "a quiet time").await, 0);
    let floods = [
        ("revocations of what is revoked", holders.clone()),
        ("writers", writers.clone()),
        ("readers", readers.clone()),
        ("rotations of tokens by themselves", rotators.clone()),
        ("strangers", strangers.clone()),
        ("all of it", [holders, writers, readers, strangers].concat()),
    ];
    for ((what, calls), victims) in floods.into_iter().zip(groups) {
        let flood = Flood::begin(&replica, &calls).await;
        let took = revocations(&mut admin, &victims, what).await;
        tell(what, took, flood.end().await);
    }
}
