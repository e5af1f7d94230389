//! Messages to every method, from a caller with all rights, and raw bytes after a connection's
//! preface. Every message gets a response other than a server fault; no bytes stop the server from
//! serving.

use std::cell::RefCell;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use http::uri::PathAndQuery;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::running::{running, runtime};

/// The methods, in an order that seeds depend on: new ones go last.
const METHODS: [&str; 33] = [
    "/tokend.v1.TokenService/CreateToken",
    "/tokend.v1.TokenService/GetToken",
    "/tokend.v1.TokenService/ListTokens",
    "/tokend.v1.TokenService/UpdateToken",
    "/tokend.v1.TokenService/RotateToken",
    "/tokend.v1.TokenService/RevokeToken",
    "/tokend.v1.TokenService/RevokeUserTokens",
    "/tokend.v1.TokenService/DisableToken",
    "/tokend.v1.TokenService/EnableToken",
    "/tokend.v1.TokenService/Verify",
    "/tokend.v1.TokenService/VerifyStream",
    "/tokend.v1.TokenService/ListTokenEvents",
    "/tokend.v1.TokenService/WatchTokens",
    "/tokend.v1.TokenService/GetPolicy",
    "/tokend.v1.TokenService/UpdatePolicy",
    "/tokend.v1.TokenService/CheckPolicy",
    "/tokend.v1.TokenService/EnforcePolicy",
    "/envoy.service.auth.v3.Authorization/Check",
    "/tokend.v1.TokenService/CreateConsoleLink",
    "/tokend.v1.TokenService/DisableUser",
    "/tokend.v1.TokenService/EnableUser",
    "/tokend.v1.TokenService/ListUsers",
    "/tokend.v1.LoginService/GetLoginPage",
    "/tokend.v1.LoginService/ExchangeLoginCode",
    "/tokend.v1.TokenService/CreatePortalSession",
    "/tokend.v1.TokenService/RevokePortalSessions",
    "/tokend.v1.TokenService/GetUsage",
    "/tokend.v1.TokenService/SetPlan",
    "/tokend.v1.TokenService/GetPlan",
    "/tokend.v1.TokenService/ListPlans",
    "/tokend.v1.TokenService/DeletePlan",
    "/tokend.v1.TokenService/AddCredits",
    "/tokend.v1.TokenService/GetTokenLimits",
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The timeout of a response. Far longer than any takes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A codec that sends bytes unchanged, and ignores the response.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// The fuzzer's client: one thread, one connection.
struct Caller {
    runtime: Runtime,
    client: Grpc<Channel>,
    bearer: MetadataValue<Ascii>,
}

thread_local! {
    static CALLER: RefCell<Option<Caller>> = const { RefCell::new(None) };
}

fn with_caller(work: impl FnOnce(&mut Caller)) {
    CALLER.with_borrow_mut(|caller| work(caller.get_or_insert_with(Caller::new)));
}

impl Caller {
    fn new() -> Self {
        let runtime = runtime();
        let url = format!("http://{}", running().address);
        let channel = runtime.block_on(async { Endpoint::from_shared(url).expect("a URL").connect_lazy() });
        let bearer = format!("Bearer {}", running().root.expose_secret()).parse().expect("ASCII");
        let mut caller = Self { runtime, client: Grpc::new(channel), bearer };
        while caller.call(METHODS[9], Vec::new()).is_err_and(|status| status.code() == Code::Unavailable) {
            std::thread::sleep(Duration::from_millis(20));
        }
        caller
    }

    /// Sends one message and waits for the first response.
    fn call(&mut self, method: &'static str, message: Vec<u8>) -> Result<(), Status> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        let client = &mut self.client;
        let called = async {
            client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let path = PathAndQuery::from_static(method);
            let answers = client.server_streaming(request, path, Raw).await?;
            // A watch that is accepted has nothing to report.
            if method.ends_with("WatchTokens") {
                return Ok(());
            }
            answers.into_inner().message().await.map(drop)
        };
        let answered = self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, called).await });
        answered.expect("an answer")
    }
}

/// Sends a message: the first byte chooses the method, the others are the message.
pub(crate) fn message(data: &[u8]) {
    let Some((method, message)) = data.split_first() else { return };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    with_caller(|caller| {
        if let Err(status) = caller.call(method, message.to_vec()) {
            // tonic itself refuses what cannot be decoded, with code INTERNAL.
            let undecodable = status.code() == Code::Internal && status.message().contains("decode");
            let ours = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss);
            assert!(!ours || undecodable, "{method}: {status:?}");
        }
    });
}

/// Sends the bytes after the preface of a connection.
pub(crate) fn frames(data: &[u8]) {
    with_caller(|caller| {
        caller.runtime.block_on(async {
            let mut stream = TcpStream::connect(running().address).await.expect("a connection");
            let mut answer = Vec::new();
            let spoken = async {
                stream.write_all(PREFACE).await?;
                stream.write_all(data).await?;
                stream.shutdown().await?;
                stream.read_to_end(&mut answer).await
            };
            // A closed connection is a response, too.
            let _ = tokio::time::timeout(TIMEOUT, spoken).await.expect("an end of the connection");
        });
        caller.call(METHODS[9], Vec::new()).expect("it goes on serving");
    });
}
