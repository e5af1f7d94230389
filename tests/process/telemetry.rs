//! The telemetry of a running server: spans for a collector, and more or fewer log lines on request.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use rustix::process::Signal;
use tokend::api::proto::GetTokenRequest;
use tokend::api::proto::token_service_client::TokenServiceClient;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::databases::Database;
use super::program::{TestDir, eventually, printed, run};
use super::rpc;

/// A collector that keeps what it receives.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts the collector, which ends with the process; returns its address.
    fn start(&self) -> String {
        self.start_with(None)
    }

    /// Starts the collector with TLS or without; returns its address.
    fn start_with(&self, tls: Option<ServerTlsConfig>) -> String {
        let encrypted = tls.is_some();
        let (sender, receiver) = std::sync::mpsc::channel();
        let service = TraceServiceServer::new(self.clone());
        thread::spawn(move || {
            rpc::runtime().block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                let mut server = Server::builder();
                if let Some(tls) = tls {
                    server = server.tls_config(tls).unwrap();
                }
                server.add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await
            })
        });
        let port = receiver.recv().unwrap().port();
        if encrypted { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") }
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| &scope.spans).cloned().collect()
    }
}

/// Requests a page from the HTTP listener.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_sampled_call_is_exported_within_its_callers_trace_and_shows_no_secret() {
    let (collector, test_dir) = (Collector::default(), TestDir::new());
    let endpoint = collector.start();
    let data_dir = test_dir.data_dir();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let telemetry = [("TOKEND_OTLP_ENDPOINT", &*endpoint), ("TOKEND_TRACE_SAMPLE_RATIO", "0")];
    let mut server = test_dir.start(&serve, &telemetry);
    let (address, root) = (server.ready(), test_dir.root_secret());
    let secret = rpc::create(&address, &root, "ada").unwrap().secret;
    // Warm, because a call in the fast path has a span, too, if its caller requests one.
    rpc::verify(&address, &root, &secret).unwrap();

    rpc::verify_traced(&address, &root, &secret, &format!("00-{TRACE}-00f067aa0ba902b7-01")).unwrap();
    rpc::verify_traced(&address, &root, &secret, &format!("00-{TRACE}-00f067aa0ba902b7-00")).unwrap();

    assert!(server.stop().success());
    assert!(eventually(|| !collector.spans().is_empty()), "{}", server.stderr());
    let spans = collector.spans();
    let [span] = &spans[..] else { panic!("not the one that was sampled: {spans:?}") };
    assert_eq!((span.name.as_str(), span.parent_span_id.len()), ("Verify", 8));
    assert_eq!(span.trace_id, u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes());
    let shown = format!("{:?}", collector.0.lock().unwrap());
    assert!(!shown.contains(&secret[27..]) && !shown.contains(&root[27..]), "{shown}");
}

#[test]
fn spans_go_to_a_collector_over_tls_that_the_system_trusts() {
    let (collector, test_dir) = (Collector::default(), TestDir::new());
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let identity = Identity::from_pem(certified.cert.pem(), certified.signing_key.serialize_pem());
    let endpoint = collector.start_with(Some(ServerTlsConfig::new().identity(identity)));
    let trusted = test_dir.file("ca.pem", &certified.cert.pem(), 0o644);
    let data_dir = test_dir.data_dir();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let telemetry = [("TOKEND_OTLP_ENDPOINT", &*endpoint), ("SSL_CERT_FILE", &*trusted)];
    let mut server = test_dir.start(&serve, &telemetry);
    let (address, root) = (server.ready(), test_dir.root_secret());
    let secret = rpc::create(&address, &root, "ada").unwrap().secret;

    rpc::verify_traced(&address, &root, &secret, &format!("00-{TRACE}-00f067aa0ba902b7-01")).unwrap();

    assert!(server.stop().success());
    assert!(eventually(|| !collector.spans().is_empty()), "{}", server.stderr());
}

#[test]
fn spans_that_do_not_arrive_are_logged_once_and_counted() {
    let test_dir = TestDir::new();
    let data_dir = test_dir.data_dir();
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    // Nothing listens on port 1.
    let telemetry = [
        ("TOKEND_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("TOKEND_TRACE_SAMPLE_RATIO", "1"),
        ("TOKEND_HTTP_LISTEN", &*http),
    ];
    let mut server = test_dir.start(&serve, &telemetry);
    let (address, root) = (server.ready(), test_dir.root_secret());
    let lost = || {
        rpc::list(&address, &root).unwrap();
        let text = get(&http, "/metrics");
        let line =
            text.lines().find(|line| line.starts_with("tokend_spans_total{outcome=\"lost\"}")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };

    assert!(eventually(|| lost() > 0), "{}", server.stderr());
    let first = lost();
    assert!(eventually(|| lost() > first), "{}", server.stderr());

    let failures = server.stderr().matches("spans cannot be exported").count();
    assert_eq!(failures, 1, "{}", server.stderr());
    assert!(server.stop().success());
}

#[test]
fn log_lines_have_the_callers_trace_and_a_signal_raises_the_level() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let secret = rpc::create(&address, &root, "ada").unwrap().secret;
    let verify = || {
        rpc::verify_traced(&address, &root, &secret, &format!("00-{TRACE}-00f067aa0ba902b7-01")).unwrap();
    };
    verify();
    assert!(!server.stderr().contains(TRACE), "an answered call is no news");

    server.signal(Signal::USR1);
    server.await_log("the log level was changed");
    verify();
    server.await_log(TRACE);

    server.signal(Signal::USR2);
    assert!(eventually(|| server.stderr().matches("the log level was changed").count() == 2));
    let lines = server.stderr().lines().count();
    verify();
    assert_eq!(server.stderr().lines().count(), lines, "{}", server.stderr());
    assert!(server.stop().success());
}

#[test]
fn the_configured_ratio_of_calls_without_a_trace_is_exported() {
    let (collector, test_dir) = (Collector::default(), TestDir::new());
    let endpoint = collector.start();
    let data_dir = test_dir.data_dir();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let telemetry = [("TOKEND_OTLP_ENDPOINT", &*endpoint), ("TOKEND_TRACE_SAMPLE_RATIO", "0.5")];
    let mut server = test_dir.start(&serve, &telemetry);
    let (address, root) = (server.ready(), test_dir.root_secret());
    let secret = rpc::create(&address, &root, "ada").unwrap().secret;

    for _ in 0..400 {
        rpc::verify(&address, &root, &secret).unwrap();
    }

    assert!(server.stop().success());
    let verified = || collector.spans().iter().filter(|span| span.name == "Verify").count();
    assert!(eventually(|| verified() > 150), "{} of 400", verified());
    assert!(verified() < 250, "{} of 400", verified());
}

#[test]
fn a_refusal_of_a_known_caller_is_logged_within_its_trace() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let secret = rpc::create(&address, &root, "ada").unwrap().secret;
    // Cached from now on; an ordinary token may not verify.
    rpc::verify(&address, &root, &secret).unwrap();

    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    rpc::verify_traced(&address, &secret, &secret, &traceparent).unwrap_err();

    server.await_log(TRACE);
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains(TRACE)).unwrap();
    for part in ["refused", "Verify", &secret[5..27]] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(server.stop().success());
}

#[test]
fn a_slow_call_and_its_slow_statement_are_logged_with_their_duration() {
    let test_dir = TestDir::new();
    let (database, keys) = (Database::new(), printed(run(&["keygen"], &[], "")));
    let shared = [("DATABASE_URL", &*database.url()), ("TOKEND_KEYS", &*keys)];
    let root = printed(run(&["bootstrap"], &shared, "")).trim_end().to_owned();
    let mut server = test_dir.start(&["serve", "--listen", "127.0.0.1:0"], &shared);
    let address = server.ready();
    // A call that is answered fast is not logged. On a busy machine one may be slow.
    let fast = (0..20).any(|_| {
        let logged = server.stderr().len();
        let start = Instant::now();
        rpc::list(&address, &root).unwrap();
        let fast = start.elapsed() < Duration::from_millis(500);
        let log = server.stderr();
        assert!(!fast || !log[logged..].contains("ListTokens"), "{log}");
        fast
    });
    assert!(fast, "no call was answered within half a second");

    // Reading the last uses of tokens now takes 1.5 s.
    database.execute(
        "ALTER TABLE token_uses RENAME TO real_uses;
         CREATE VIEW token_uses AS SELECT token_id, last_use_time FROM real_uses
             UNION ALL SELECT gen_random_uuid(), now() FROM pg_sleep(1.5)",
    );
    rpc::list(&address, &root).unwrap();

    server.await_log("answered slowly");
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("answered slowly")).unwrap();
    for part in ["INFO", "ListTokens", "caller", "trace.id"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let took = line.split_once("duration_ms=").unwrap().1;
    let took: f64 = took.split(' ').next().unwrap().parse().unwrap();
    assert!(took >= 1_500.0, "{line}");
    let statement = log.lines().find(|line| line.contains("slow statement")).unwrap();
    for part in ["WARN", "ListTokens", "FROM tokens"] {
        assert!(statement.contains(part), "{part} is not in {statement}");
    }
    assert!(!log.contains(&root));
    assert!(server.stop().success());
}

#[test]
fn refusals_of_unauthenticated_clients_are_counted_and_rarely_logged() {
    const REFUSED: usize = 3000;
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let address = server.ready();
    let before = server.stderr().len();

    rpc::runtime().block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let mut client = TokenServiceClient::new(channel);
        for _ in 0..REFUSED {
            client.get_token(GetTokenRequest::default()).await.unwrap_err();
        }
    });

    server.await_log("refused, and not logged one by one");
    let log = server.stderr();
    let (lines, counts): (Vec<_>, Vec<_>) =
        log[before..].lines().partition(|line| !line.contains("not logged one by one"));
    // Ten lines of some 300 bytes for each ten seconds of this test.
    let written = lines.iter().filter(|line| line.contains("refused")).count();
    assert!(written < REFUSED / 10, "{written} lines");
    let count = |line: &&str| line.split_once("count=").unwrap().1.trim().parse::<usize>().unwrap();
    assert!(counts.iter().map(count).sum::<usize>() > REFUSED / 2, "{counts:?}");
    assert!(server.stop().success());
}
