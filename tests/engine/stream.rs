//! `VerifyStream`: responses in the order of the requests whatever each of them needs, each judged
//! when it is sent, and an end with a reason.

use std::time::Duration;

use tokend::api::proto::{
    Consistency, Verdict, VerifyRequest, VerifyResponse, VerifyStreamRequest, VerifyStreamResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::setup::{cached, in_cache, made, revoking};
use crate::support::client::{Client, created_with, forged, question, revoked, unknown_id};
use crate::support::replica::Replica;
use crate::support::status::{check, fields};
use crate::support::{eventually, in_time};

/// A stream of one caller.
struct Stream {
    questions: mpsc::Sender<VerifyStreamRequest>,
    answers: Streaming<VerifyStreamResponse>,
}

impl Stream {
    async fn open(client: &mut Client) -> Self {
        Self::asking(client, []).await
    }

    /// Opens a stream whose first requests are queued from the start, so that they arrive together.
    async fn asking(client: &mut Client, first: impl IntoIterator<Item = VerifyRequest>) -> Self {
        let (questions, asked) = mpsc::channel(4_096);
        for request in first {
            questions.try_send(VerifyStreamRequest { request: Some(request) }).unwrap();
        }
        let answers = client.verify_stream(ReceiverStream::new(asked)).await.unwrap().into_inner();
        Self { questions, answers }
    }

    async fn ask(&self, request: VerifyRequest) {
        self.questions.send(VerifyStreamRequest { request: Some(request) }).await.unwrap();
    }

    async fn answer(&mut self) -> Result<Verdict, tonic::Status> {
        Ok(self.whole_answer().await?.verdict())
    }

    async fn whole_answer(&mut self) -> Result<VerifyResponse, tonic::Status> {
        let answer = in_time("the answer", self.answers.message()).await?;
        Ok(answer.expect("an answer").response.unwrap())
    }

    async fn ended(&mut self) -> tonic::Status {
        loop {
            match in_time("the end", self.answers.message()).await {
                Ok(answer) => assert!(answer.is_some(), "ended without a word"),
                Err(status) => return status,
            }
        }
    }
}

#[tokio::test]
async fn answers_come_in_order_whatever_they_wait_for() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let (hit, gone) = (cached(&mut root).await, made(&mut root).await);
    revoked(&mut root, &gone.id, "").await;
    let full =
        |secret: &str| VerifyRequest { consistency: Consistency::Full.into(), ..question(secret, &[]) };
    let mut stream = Stream::open(&mut root).await;
    let mut expected = Vec::new();
    for round in 0..60 {
        let unread = made(&mut replica.root()).await;
        for (request, verdict) in [
            (question(&hit.secret, &[]), Verdict::Valid),
            (question(&unread.secret, &["a:b"]), Verdict::MissingScope),
            (full(&gone.secret), Verdict::Revoked),
            (question(&forged(unknown_id()), &[]), Verdict::NotFound),
            (question(&gone.secret, &[]), Verdict::Revoked),
            (full(&hit.secret), Verdict::Valid),
            (question("no secret", &[]), Verdict::Malformed),
        ]
        .into_iter()
        .cycle()
        .skip(round % 7)
        .take(7)
        {
            stream.ask(request).await;
            expected.push(verdict);
        }
    }
    for (number, verdict) in expected.into_iter().enumerate() {
        assert_eq!(stream.answer().await.unwrap(), verdict, "answer {number}");
    }
    drop(stream.questions);
    assert!(in_time("the end", stream.answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn requests_that_arrive_together_each_get_their_own_answer() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut tokens = Vec::new();
    for _ in 0..40 {
        tokens.push(cached(&mut root).await);
    }
    for place in [0, 1, 2, 14, 15, 16, 17, 31, 38] {
        let unread = made(&mut replica.root()).await;
        let mut asked: Vec<_> = tokens
            .iter()
            .zip([&[][..], &["a:b"]].into_iter().cycle())
            .map(|(token, missing)| {
                let verdict = if missing.is_empty() { Verdict::Valid } else { Verdict::MissingScope };
                (question(&token.secret, missing), verdict, Some(&token.id))
            })
            .collect();
        asked.insert(place, (question(&unread.secret, &[]), Verdict::Valid, Some(&unread.id)));
        asked.insert(place + 1, (question("no secret", &[]), Verdict::Malformed, None));
        asked.insert(place + 2, (question(&forged(unknown_id()), &[]), Verdict::NotFound, None));
        let mut stream = Stream::asking(&mut root, asked.iter().map(|(request, ..)| request.clone())).await;
        for (number, (_, verdict, id)) in asked.iter().enumerate() {
            let answer = stream.whole_answer().await.unwrap();
            let reported = answer.token.as_ref().map(|token| &token.id);
            assert_eq!((answer.verdict(), reported), (*verdict, *id), "unread at {place}, answer {number}");
        }
    }
}

#[tokio::test]
async fn a_token_revoked_between_two_bursts_is_refused_in_the_second() {
    let replica = Replica::shared().await;
    let mut root = replica.root();
    let mut tokens = Vec::new();
    for _ in 0..20 {
        tokens.push(cached(&mut root).await);
    }
    let asked = || tokens.iter().map(|token| question(&token.secret, &[]));
    let mut stream = Stream::asking(&mut root, asked()).await;
    for gone in 0..tokens.len() {
        for (number, _) in tokens.iter().enumerate() {
            let expected = if number < gone { Verdict::Revoked } else { Verdict::Valid };
            assert_eq!(stream.answer().await.unwrap(), expected, "{gone} are revoked, answer {number}");
        }
        revoked(&mut root, &tokens[gone].id, "").await;
        for request in asked() {
            stream.ask(request).await;
        }
    }
}

#[tokio::test]
async fn a_caller_revoked_during_its_stream_gets_no_further_answer() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let token = cached(&mut root).await;
    let caller = created_with(&mut root, "acme", &["tokend:verify:any"]).await;
    let mut stream = Stream::open(&mut replica.client(&caller.secret)).await;
    stream.ask(question(&token.secret, &[])).await;
    assert_eq!(stream.answer().await.unwrap(), Verdict::Valid);

    revoked(&mut root, &caller.token.unwrap().id, "").await;
    stream.ask(question(&token.secret, &[])).await;

    check(&stream.ended().await, Code::Unauthenticated, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn an_invalid_request_ends_the_stream_after_the_answers_before_it() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let token = made(&mut root).await;
    let bad = [
        (VerifyStreamRequest { request: None }, "request"),
        (
            VerifyStreamRequest { request: Some(question(&token.secret, &["Not A Scope"])) },
            "required_scopes[0]",
        ),
        (
            VerifyStreamRequest {
                request: Some(VerifyRequest { consistency: 77, ..question(&token.secret, &[]) }),
            },
            "consistency",
        ),
    ];
    for (request, field) in bad {
        let mut stream = Stream::open(&mut root).await;
        stream.ask(question(&token.secret, &[])).await;
        stream.questions.send(request).await.unwrap();
        assert_eq!(stream.answer().await.unwrap(), Verdict::Valid);
        let status = stream.ended().await;
        check(&status, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(fields(&status), [field]);
    }
}

#[tokio::test]
async fn a_busy_stream_ends_with_its_replica() {
    for busy in [false, true] {
        let replica = Replica::start().await;
        let token = cached(&mut replica.root()).await;
        let mut stream = Stream::open(&mut replica.root()).await;
        stream.ask(question(&token.secret, &[])).await;
        assert_eq!(stream.answer().await.unwrap(), Verdict::Valid);
        let (questions, secret) = (stream.questions.clone(), token.secret.clone());
        let asking = tokio::spawn(async move {
            let request = VerifyStreamRequest { request: Some(question(&secret, &[])) };
            while busy && questions.send(request.clone()).await.is_ok() {}
        });

        let ending = replica.shut_down();

        check(&stream.ended().await, Code::Unavailable, "SHUTTING_DOWN");
        drop(stream);
        ending.outcome().await.unwrap();
        in_time("the questions", asking).await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_reader_gets_answers_that_are_true_when_it_reads_them() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let token = cached(&mut root).await;
    let mut stream = Stream::open(&mut replica.root()).await;
    // Requests are sent until no more is accepted: neither side buffers the rest.
    let (questions, secret) = (stream.questions.clone(), token.secret.clone());
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let asking = tokio::spawn(async move {
        let request = VerifyStreamRequest { request: Some(question(&secret, &[])) };
        while questions.send(request.clone()).await.is_ok() {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let mut before = 0;
    eventually("no more is taken", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        (now > 0 && std::mem::replace(&mut before, now) == now).then_some(())
    })
    .await;
    let held = sent.load(std::sync::atomic::Ordering::Relaxed);

    replica.installation.database.execute(revoking(&token)).await;
    super::setup::becomes(&mut root, &token, Verdict::Revoked).await;

    // What the transport had buffered is older; the requests that waited are judged now.
    let mut valid = 0;
    while stream.answer().await.unwrap() == Verdict::Valid {
        valid += 1;
        assert!(valid <= held);
    }
    assert_eq!(stream.answer().await.unwrap(), Verdict::Revoked);
    asking.abort();
    drop(stream);
    let other = made(&mut root).await;
    in_cache(&mut root, &other).await;
}
