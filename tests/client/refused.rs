//! Verifies that may spend, over connections that end before the server has begun them: repeated if HTTP/2 says that
//! they were not begun, and only then.

use std::net::SocketAddr;

use tokend_client::{Error, Verdict, Verification, VerifyRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::asking::client_at;
use crate::support::client::{created, ordinary};
use crate::support::in_time;
use crate::support::replica::Replica;

/// What the first connection of a client gets: an empty SETTINGS, then this frame, once a HEADERS frame has come or
/// at once.
#[derive(Debug, Clone, Copy)]
struct Ending {
    frame: &'static [u8],
    waits: bool,
}

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PREFACE: usize = 24;
const HEADERS: u8 = 1;

/// `RST_STREAM` of stream 1, with this error code.
const REFUSED_STREAM: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
const INTERNAL_ERROR: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];

/// GOAWAY without an error, with the last stream that was begun.
const NONE_BEGUN: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const FIRST_BEGUN: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];

/// Ends the first connection so, and leads later ones to the server.
async fn serve(listener: TcpListener, server: SocketAddr, ending: Ending) {
    let (mut first, _) = listener.accept().await.unwrap();
    first.write_all(SETTINGS).await.unwrap();
    first.read_exact(&mut [0; PREFACE]).await.unwrap();
    while ending.waits && frame(&mut first).await != HEADERS {}
    first.write_all(ending.frame).await.unwrap();
    first.shutdown().await.unwrap();
    let mut led = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        led.spawn(async move {
            let mut server = TcpStream::connect(server).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

/// Reads a frame and returns its type.
async fn frame(connection: &mut TcpStream) -> u8 {
    let mut head = [0; 9];
    connection.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    connection.read_exact(&mut payload).await.unwrap();
    head[3]
}

/// Verifies once with a new client whose first connection ends so.
async fn verified(replica: &Replica, secret: &str, ending: Ending) -> Result<Verification, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_at(listener.local_addr().unwrap(), &replica.installation.root_secret);
    let mut server = JoinSet::new();
    server.spawn(serve(listener, replica.address, ending));
    let verifier = tokend_client::Verifier::unary(client);
    in_time("an answer", verifier.verify(&VerifyRequest::new(secret))).await
}

#[tokio::test]
async fn a_verify_that_may_spend_is_repeated_if_http2_says_that_it_was_not_begun() {
    let replica = Replica::shared().await;
    let secret = created(&mut replica.root(), ordinary()).await.secret;
    for frame in [REFUSED_STREAM, NONE_BEGUN] {
        let answer = verified(replica, &secret, Ending { frame, waits: true }).await;
        assert_eq!(answer.unwrap().verdict, Verdict::Valid, "{frame:?}");
    }
    for frame in [INTERNAL_ERROR, FIRST_BEGUN] {
        let answer = verified(replica, &secret, Ending { frame, waits: true }).await;
        assert!(answer.is_err(), "repeated after {frame:?}");
    }
}

/// Where the client is when the connection ends differs from one to the next.
#[tokio::test]
async fn a_verify_that_may_spend_survives_a_connection_that_closes_as_it_opens() {
    let replica = Replica::shared().await;
    let secret = created(&mut replica.root(), ordinary()).await.secret;
    for attempt in 0..50 {
        let answer = verified(replica, &secret, Ending { frame: NONE_BEGUN, waits: false }).await;
        let answer = answer.unwrap_or_else(|error| panic!("attempt {attempt}: {error:?}"));
        assert_eq!(answer.verdict, Verdict::Valid);
    }
}
