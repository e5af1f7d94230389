//! The cost of a verdict for a service that uses the client crate: judged locally, and requested from a
//! tokend on this machine, with one call per verdict or multiplexed on one. One run measures all, on a
//! real server and a real Postgres.
//!
//!     cargo bench --bench client

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]

#[expect(dead_code, reason = "each suite uses its part")]
#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokend_client::{Client, Connection, LocalConfig, Scope, Scopes, Verdict, Verifier, VerifyRequest};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::support::client::created_with;
use crate::support::eventually;
use crate::support::replica::Replica;

/// How many tokens are verified in rotation.
const TOKENS: usize = 10_000;

/// How many requests are in flight, where there is more than one.
const AT_ONCE: usize = 64;

struct Subject {
    replica: Replica,
    secrets: Vec<String>,
    required: Scopes,
}

impl Subject {
    async fn start() -> Self {
        let replica = Replica::start().await;
        let mut root = replica.root();
        let mut secrets = Vec::with_capacity(TOKENS);
        for _ in 0..TOKENS {
            secrets.push(created_with(&mut root, "acme", &["repo:*", "user:read"]).await.secret);
        }
        let required = Scopes::new(vec![Scope::parse("repo:read").unwrap()]).unwrap();
        Self { replica, secrets, required }
    }

    fn client(&self) -> Client {
        let address = format!("http://{}", self.replica.address);
        Connection::to(address).secret((&*self.replica.installation.root_secret).into()).open().unwrap()
    }

    fn request(&self, number: usize) -> VerifyRequest<'_> {
        let secret = &self.secrets[number % TOKENS];
        VerifyRequest::new(secret).required_scopes(&self.required)
    }

    /// Makes a verifier cache all tokens.
    async fn hold(&self, verifier: &Verifier) {
        for number in 0..TOKENS {
            eventually("the token is held", async || {
                verifier.verify(&self.request(number)).await.unwrap();
                verifier.try_verify(&self.request(number))
            })
            .await;
        }
    }
}

/// Sends this many requests at once.
async fn send(subject: &Arc<Subject>, verifier: &Verifier, from: usize, count: usize) {
    let mut sending = JoinSet::new();
    for number in from..from + count {
        let (subject, verifier) = (Arc::clone(subject), verifier.clone());
        sending.spawn(async move {
            let answer = verifier.verify(&subject.request(number)).await.unwrap();
            assert_eq!(answer.verdict, Verdict::Valid);
        });
    }
    sending.join_all().await;
}

fn verdicts(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let (subject, local, unary, multiplexed) = runtime.block_on(async {
        let subject = Arc::new(Subject::start().await);
        let local = Verifier::local(subject.client(), LocalConfig::default()).unwrap();
        subject.hold(&local).await;
        let (unary, multiplexed) =
            (Verifier::unary(subject.client()), Verifier::multiplexed(subject.client()).unwrap());
        (subject, local, unary, multiplexed)
    });

    let mut group = criterion.benchmark_group("a verdict");
    group.throughput(Throughput::Elements(1));
    let mut number = 0;
    group.bench_function("local", |bencher| {
        bencher.iter(|| {
            number += 1;
            let answer = local.try_verify(black_box(&subject.request(number))).unwrap();
            assert_eq!(answer.verdict, Verdict::Valid);
            answer
        });
    });
    for (name, verifier) in [("unary", &unary), ("multiplexed", &multiplexed)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                number += 1;
                runtime.block_on(send(&subject, verifier, number, 1));
            });
        });
    }
    group.throughput(Throughput::Elements(AT_ONCE as u64));
    for (name, verifier) in [("unary, 64 at once", &unary), ("multiplexed, 64 at once", &multiplexed)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                number += AT_ONCE;
                runtime.block_on(send(&subject, verifier, number, AT_ONCE));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = verdicts
}
criterion_main!(benches);
