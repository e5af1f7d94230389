//! What a running server tells of itself: spans to a collector, and more or fewer log lines when asked.

use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::databases::Database;
use super::program::{Place, eventually, printed, run};
use super::rpc;

/// A collector that keeps what it is sent.
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
    /// Starts it; returns where it listens. It ends with the process.
    fn start(&self) -> String {
        let (sender, receiver) = std::sync::mpsc::channel();
        let service = TraceServiceServer::new(self.clone());
        thread::spawn(move || {
            rpc::runtime().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await
            })
        });
        format!("http://{}", receiver.recv().unwrap())
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| &scope.spans).cloned().collect()
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[test]
fn a_sampled_call_is_exported_within_its_callers_trace_and_shows_no_secret() {
    let (collector, place) = (Collector::default(), Place::new());
    let endpoint = collector.start();
    let data_dir = place.data_dir();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let telemetry = [("TOKEND_OTLP_ENDPOINT", &*endpoint), ("TOKEND_TRACE_SAMPLE_RATIO", "0")];
    let mut server = place.start(&serve, &telemetry);
    let (address, root) = (server.ready(), place.root_secret());
    let secret = rpc::create(&address, &root, "ada").unwrap().secret;
    // Warm: a call in the fast lane has a span too when its caller wants one.
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
fn log_lines_carry_the_callers_trace_and_more_of_them_come_when_asked() {
    let place = Place::new();
    let mut server = place.serve();
    let (address, root) = (server.ready(), place.root_secret());
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
fn of_calls_without_a_trace_the_part_that_was_asked_for_is_exported() {
    let (collector, place) = (Collector::default(), Place::new());
    let endpoint = collector.start();
    let data_dir = place.data_dir();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let telemetry = [("TOKEND_OTLP_ENDPOINT", &*endpoint), ("TOKEND_TRACE_SAMPLE_RATIO", "0.5")];
    let mut server = place.start(&serve, &telemetry);
    let (address, root) = (server.ready(), place.root_secret());
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
fn a_call_that_is_refused_to_a_known_caller_is_logged_within_its_trace() {
    let place = Place::new();
    let mut server = place.serve();
    let (address, root) = (server.ready(), place.root_secret());
    let secret = rpc::create(&address, &root, "ada").unwrap().secret;
    // Known from now on; an ordinary token may verify nothing.
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
fn a_slow_call_is_logged_with_how_long_it_took_and_so_is_its_slow_statement() {
    let place = Place::new();
    let (database, keys) = (Database::new(), printed(run(&["keygen"], &[], "")));
    let shared = [("DATABASE_URL", &*database.url()), ("TOKEND_KEYS", &*keys)];
    let root = printed(run(&["bootstrap"], &shared, "")).trim_end().to_owned();
    let mut server = place.start(&["serve", "--listen", "127.0.0.1:0"], &shared);
    let address = server.ready();
    rpc::list(&address, &root).unwrap();
    assert!(!server.stderr().contains("ListTokens"), "an answered call is no news: {}", server.stderr());

    // The time of each token's last use takes as long to read.
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
