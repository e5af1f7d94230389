//! Honest clients with many calls at once, as after a pause: none is treated as a flood.

use std::time::Duration;

use prost::Message as _;
use sqlx::Connection as _;
use tokend::api::proto::VerifyStreamRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use crate::support::client::{forged, question, unknown_id};
use crate::support::in_time;
use crate::support::replica::Replica;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns the head of a call, in HPACK without its table (RFC 7541, 6.2.2).
fn head(path: &str) -> Vec<u8> {
    let mut head = vec![0x83, 0x86];
    let mut add = |name: &[u8], value: &str| {
        head.extend(name);
        head.push(u8::try_from(value.len()).unwrap());
        head.extend(value.as_bytes());
    };
    add(&[0x04], path);
    add(&[0x01], "tokend");
    // content-type, te.
    add(&[0x0f, 0x10], "application/grpc");
    add(&[0x00, 0x02, b't', b'e'], "trailers");
    head
}

#[tokio::test]
async fn calls_that_expire_together_end_and_their_connection_continues() {
    let replica = Replica::start().await;
    let mut stream = TcpStream::connect(replica.address).await.unwrap();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    let verify = head("/tokend.v1.TokenService/Verify");
    let ids: Vec<u32> = (0..200).map(|number| 2 * number + 1).collect();
    for id in &ids {
        sent.extend(frame(HEADERS, END_HEADERS, *id, &verify));
        sent.extend(frame(RST_STREAM, 0, *id, &8_u32.to_be_bytes()));
    }
    let last = ids.last().unwrap() + 2;
    sent.extend(frame(HEADERS, END_HEADERS | END_STREAM, last, &verify));
    // Everything arrives at once.
    stream.write_all(&sent).await.unwrap();

    loop {
        let mut frame_head = [0; 9];
        in_time("a frame", stream.read_exact(&mut frame_head)).await.unwrap();
        let [a, b, c, kind, _, id @ ..] = frame_head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        in_time("its payload", stream.read_exact(&mut payload)).await.unwrap();
        assert_ne!(kind, GOAWAY, "{}", String::from_utf8_lossy(&payload));
        if kind == HEADERS && u32::from_be_bytes(id) == last {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_stream_waits_for_a_blocked_postgres_and_is_answered() {
    const QUESTIONS: usize = 5_000;
    let replica = Replica::start().await;
    let socket = TcpStream::connect(replica.address).await.unwrap();
    let (requests, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut lock = replica.installation.database.connect().await;
    for statement in ["BEGIN", "LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE"] {
        sqlx::raw_sql(statement).execute(&mut lock).await.unwrap();
    }
    let request = Request::post("http://tokend/tokend.v1.TokenService/VerifyStream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", replica.installation.root_secret));
    let mut requests = requests.ready().await.unwrap();
    let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();

    let asking = tokio::spawn(async move {
        for number in 0..QUESTIONS {
            // One frame per message, as with most clients.
            let message =
                VerifyStreamRequest { request: Some(question(&forged(unknown_id()), &[])) }.encode_to_vec();
            let mut asked = vec![0];
            asked.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            asked.extend(message);
            let mut left = Bytes::from(asked);
            while !left.is_empty() {
                body.reserve_capacity(left.len());
                let room = std::future::poll_fn(|context| body.poll_capacity(context)).await;
                let room = room.expect("the stream goes on").unwrap().min(left.len());
                let last = number + 1 == QUESTIONS && room == left.len();
                body.send_data(left.split_to(room), last).unwrap();
            }
        }
    });
    // As long as a lock may well be held.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!connection.is_finished(), "{:?}", connection.await);
    lock.close().await.unwrap();

    let mut answers = in_time("the head", answer).await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(data) = in_time("answers", answers.data()).await {
        let data = data.unwrap();
        bytes += data.len();
        answers.flow_control().release_capacity(data.len()).unwrap();
    }
    asking.await.unwrap();
    let trailers = answers.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0", "{trailers:?}");
    assert!(bytes > 5 * QUESTIONS, "{bytes}");
}
