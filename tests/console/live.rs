//! News of the list: what others do is sent to an open page, to those who may see it, while their session lasts.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use tokend::api::proto::CreateTokenRequest;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::Person;
use crate::support::client::{created, created_with, ordinary, revoked};
use crate::support::in_time;
use crate::support::replica::{Installation, Replica};

/// An open stream of news.
struct News {
    status: u16,
    stream: BufReader<TcpStream>,
    /// The position after the last message.
    position: String,
}

impl News {
    async fn open(address: SocketAddr, cookie: &str, path: &str, after: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let after = if after.is_empty() { String::new() } else { format!("Last-Event-ID: {after}\r\n") };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\
             Connection: close\r\n{after}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut news = Self { status: 0, stream: BufReader::new(stream), position: String::new() };
        let head = news.line().await.unwrap();
        news.status = head.split(' ').nth(1).unwrap().parse().unwrap();
        while !news.line().await.unwrap().is_empty() {}
        news
    }

    async fn of(person: &Person, query: &str) -> Self {
        let path = format!("/tokens/live{query}");
        let mut news = Self::open(person.address, &person.cookie, &path, "").await;
        assert_eq!(news.status, 200);
        // From here on nothing is missed.
        assert_eq!(news.next().await, Some(Value::Null));
        news
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match in_time("a line", self.stream.read_line(&mut line)).await {
            Ok(1..) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
            _ => None,
        }
    }

    /// Returns the next message, null for one that only has a position; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let mut data = None;
        loop {
            let line = self.line().await?;
            // Lines of the chunked encoding are no fields.
            if let Some(position) = line.strip_prefix("id: ") {
                position.clone_into(&mut self.position);
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(text).unwrap());
            } else if line == "data" {
                data = Some(Value::Null);
            } else if line.is_empty() && data.is_some() {
                return data;
            }
        }
    }

    /// Returns the next message that has changes.
    async fn changes(&mut self) -> Value {
        loop {
            match self.next().await {
                Some(Value::Null) => {}
                Some(news) => return news,
                None => panic!("the stream has ended"),
            }
        }
    }

    /// Waits for the end.
    async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }
}

#[tokio::test]
async fn what_others_do_is_sent_to_an_open_list_on_every_replica() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let person = Person::root(&one).await;
    let mut news = [News::of(&person, "").await, News::of(&person.at(&two), "").await];

    let id = created_with(&mut one.root(), "acme", &[]).await.token.unwrap().id;
    for news in &mut news {
        let message = news.changes().await;
        assert_eq!(message["changes"][0]["id"], *id, "{message}");
        assert_eq!(message["changes"][0]["state"], serde_json::json!(["Active", "good"]));
        assert_eq!((message["changes"].as_array().unwrap().len(), &message["more"]), (1, &0.into()));
    }
    revoked(&mut two.root(), &id, "").await;
    for news in &mut news {
        assert_eq!(news.changes().await["changes"][0]["state"], serde_json::json!(["Revoked", "bad"]));
    }
}

#[tokio::test]
async fn only_what_the_list_may_show_is_sent() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let own = created_with(&mut root, "acme", &["tokend:read"]).await;
    let reader = Person::of(replica.console, &own.secret).await;
    let root_person = Person::root(&replica).await;
    let mut news = News::of(&reader, "").await;
    let mut of_bob = News::of(&root_person, "?user=bob&organization=acme").await;

    created_with(&mut root, "other", &[]).await;
    let of = async |user: &str| {
        let request =
            CreateTokenRequest { user_id: user.to_owned(), organization_id: "acme".to_owned(), ..ordinary() };
        created(&mut replica.root(), request).await.token.unwrap().id
    };
    let (ada, bob) = (of("ada").await, of("bob").await);

    let (mut seen, expected) = (BTreeSet::new(), BTreeSet::from([ada, bob.clone()]));
    while !seen.is_superset(&expected) {
        let message = news.changes().await;
        let changes = message["changes"].as_array().unwrap().clone();
        seen.extend(changes.iter().map(|change| change["id"].as_str().unwrap().to_owned()));
    }
    // The feed may have read of the reader's own creation only now.
    seen.remove(&own.token.unwrap().id);
    assert_eq!(seen, expected);
    let message = of_bob.changes().await;
    assert_eq!(message["changes"].as_array().unwrap().len(), 1, "{message}");
    assert_eq!(message["changes"][0]["id"], *bob);

    let writer = created_with(&mut root, "acme", &["tokend:write"]).await.secret;
    let cookie = super::cookie(&super::sign_in(replica.console, &writer).await);
    assert_eq!(News::open(replica.console, &cookie, "/tokens/live", "").await.status, 403);
    assert_eq!(News::open(replica.console, "", "/tokens/live", "").await.status, 401);
}

#[tokio::test]
async fn news_end_with_the_session_and_with_its_token() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    let (person, other) = (Person::root(&replica).await, Person::root(&replica).await);
    let mut news = News::of(&person, "").await;
    assert_eq!(person.post("/sign-out", &[]).await.status, 303);
    news.ended().await;

    let reader = created_with(&mut root, "acme", &["tokend:read"]).await;
    let reading = Person::of(replica.console, &reader.secret).await;
    let mut news = News::of(&reading, "").await;
    revoked(&mut root, &reader.token.unwrap().id, "").await;
    news.ended().await;

    // An open page is no use of its session, which ends when nobody does anything.
    let mut news = News::of(&other, "").await;
    let database = &replica.installation.database;
    let idle = "UPDATE console_sessions SET last_use_time = now() - interval '29 minutes'";
    database.execute(idle).await;
    let mut again = News::of(&other, "").await;
    let used = "SELECT count(*) FROM console_sessions WHERE last_use_time > now() - interval '28 minutes'";
    assert_eq!(database.count(used).await, 0);
    let over = "UPDATE console_sessions SET last_use_time = now() - interval '30 minutes'";
    database.execute(over).await;
    news.ended().await;
    again.ended().await;
}

#[tokio::test]
async fn a_page_that_lost_its_connection_gets_what_it_missed() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let person = Person::root(&one).await;
    let mut news = News::of(&person, "").await;
    let id = created_with(&mut two.root(), "acme", &[]).await.token.unwrap().id;
    news.changes().await;
    let position = news.position.clone();
    drop(news);
    revoked(&mut two.root(), &id, "").await;

    let away = person.at(&two);
    let mut news = News::open(two.console, &away.cookie, "/tokens/live", &position).await;
    assert_eq!(news.status, 200);
    let message = news.changes().await;
    assert_eq!(message["changes"][0]["id"], *id, "{message}");
    assert_eq!(message["changes"][0]["state"][0], "Revoked");

    // What is no position says that something may have changed.
    let mut news = News::open(one.console, &person.cookie, "/tokens/live", "made-up").await;
    let message = news.changes().await;
    assert_eq!((message["changes"].as_array().unwrap().len(), &message["more"]), (0, &1.into()));
}

#[tokio::test]
async fn a_session_has_three_streams_and_further_ones_are_not_tried_again() {
    let replica = Replica::start().await;
    let (person, other) = (Person::root(&replica).await, Person::root(&replica).await);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(News::of(&person, "").await);
    }
    // A browser does not connect again after this status.
    assert_eq!(person.get("/tokens/live").await.status, 204);
    assert_eq!(person.get("/audit/events.jsonl").await.status, 429);
    News::of(&other, "").await;
    open.pop();
    crate::support::eventually("one comes back", async || {
        (News::open(person.address, &person.cookie, "/tokens/live", "").await.status == 200).then_some(())
    })
    .await;
}
