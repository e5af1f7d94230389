//! From the first start to the clean stop, on a private Postgres.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use h2::{Ping, SendStream};
use rustix::process::Signal;
use tokend::api::proto::Verdict;
use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use super::program::{TestDir, eventually, is_running, printed, run, text};
use super::rpc;

#[test]
fn a_first_start_shows_a_usable_root_secret_once_on_a_terminal() {
    let test_dir = TestDir::new();
    let (mut server, terminal) = test_dir.serve_on_a_terminal();

    let address = server.ready();

    let secret = test_dir.root_secret();
    assert!(eventually(|| terminal.shown().contains("CreateToken")), "{}", terminal.shown());
    assert_eq!(terminal.shown().matches(&secret).count(), 1);
    assert_eq!(terminal.shown().matches("tokd_").count(), 1);
    assert!(!server.stderr().contains(&secret));
    // The link stands on a line of its own, and nowhere else.
    let shown = terminal.shown();
    let links: Vec<_> = shown.lines().map(str::trim).filter(|line| line.contains("/link#")).collect();
    let [link] = links[..] else { panic!("{shown}") };
    assert!(link.starts_with("http://tokend.localhost:"), "{link}");
    assert_eq!(confirmed(link), 303);
    assert!(!server.stderr().contains(link.split_once('#').unwrap().1));
    let listed = rpc::list(&address, &secret).unwrap();
    assert_eq!(listed.iter().map(|token| token.scopes.join(" ")).collect::<Vec<_>>(), ["tokend:root"]);
}

/// Signs in to the console by a link; returns the status of the answer.
pub(crate) fn confirmed(link: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let (site, code) = link.trim().split_once("/link#").unwrap();
    let host = site.strip_prefix("http://").unwrap();
    let form = format!("code={code}");
    let mut stream = std::net::TcpStream::connect(host.replace("tokend.localhost", "127.0.0.1")).unwrap();
    let request = format!(
        "POST /link/confirm HTTP/1.0\r\nHost: {host}\r\nOrigin: {site}\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_first_start_without_a_terminal_prints_only_the_path_of_the_root_secret() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    server.ready();

    let shown = server.stdout();

    let path = test_dir.data_dir().join("root-secret");
    assert!(shown.contains(&format!("The first root secret is in {}", path.display())), "{shown}");
    assert!(!shown.contains("/link#"), "{shown}");
    assert!(!shown.contains("tokd_") && !server.stderr().contains(&test_dir.root_secret()), "{shown}");
}

#[test]
#[cfg(target_os = "linux")]
fn no_command_allows_core_dumps_or_reading_its_memory() {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    let test_dir = TestDir::new();
    let program = test_dir.path().join("tokend");
    std::fs::copy(super::program::PROGRAM, &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["secret", "check"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    // It waits for its input.
    let mut child = command.spawn().unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    let owner = || std::fs::metadata(process.join("mem")).map(|metadata| metadata.uid());

    // There, a process that must not be dumped belongs to root.
    assert!(eventually(|| owner().is_ok_and(|uid| uid == 0)), "{:?}", owner());
    let limits = std::fs::read_to_string(process.join("limits")).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(limit.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_later_start_has_the_same_data_and_shows_nothing() {
    let test_dir = TestDir::new();
    let mut first = test_dir.serve();
    let address = first.ready();
    let root = test_dir.root_secret();
    let kept = rpc::create(&address, &root, "ada").unwrap().secret;
    assert!(first.stop().success());

    let mut second = test_dir.serve();
    let address = second.ready();

    assert_eq!(second.stdout(), "");
    assert!(!second.stderr().contains("already exists"), "{}", second.stderr());
    assert_eq!(test_dir.root_secret(), root);
    assert_eq!(rpc::list(&address, &root).unwrap().len(), 2);
    assert_eq!(rpc::verdict(&address, &root, &kept), Verdict::Valid);
}

#[test]
fn variables_for_another_postgres_do_not_affect_the_private_one() {
    let test_dir = TestDir::new();
    let foreign = [
        ("PGHOST", "nowhere.invalid"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGPORT", "1"),
        ("PGDATABASE", "elsewhere"),
        ("PGUSER", "nobody"),
        ("PGPASSWORD", "wrong"),
        ("PGDATA", "/nowhere"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/nowhere"),
        ("PGSSLCERT", "/nowhere"),
        ("PGOPTIONS", "-c default_transaction_read_only=on -c nothing.such=on"),
        ("PGAPPNAME", "elsewhere"),
        ("PGTZ", "nowhere"),
        ("PGSERVICE", "elsewhere"),
        ("PGCLIENTENCODING", "LATIN1"),
    ];
    let data_dir = test_dir.data_dir();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()];
    let mut server = test_dir.start(&arguments, &foreign);

    let address = server.ready();

    let made = rpc::create(&address, &test_dir.root_secret(), "ada").unwrap();
    assert_eq!(rpc::verdict(&address, &test_dir.root_secret(), &made.secret), Verdict::Valid);
    assert!(server.stop().success());
}

#[test]
fn sigterm_and_ctrl_c_stop_tokend_and_its_postgres_cleanly() {
    let test_dir = TestDir::new();
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = test_dir.serve();
        server.ready();
        let postgres = test_dir.postmaster();

        server.signal(signal);
        let status = server.end();

        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert!(!is_running(postgres), "{signal:?}");
        assert!(!test_dir.data_dir().join("postgres/postmaster.pid").exists(), "{signal:?}");
    }
}

#[test]
fn the_command_line_creates_lists_verifies_and_revokes() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let address = server.ready();
    let secret_file = test_dir.data_dir().join("root-secret");
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET_FILE", secret_file.to_str().unwrap())];
    let create = ["token", "create", "--user", "ada", "--name", "laptop", "--ttl", "1h", "--scope", "a:*"];

    let secret = printed(run(&create, &caller, ""));
    let listed = printed(run(&["token", "list", "--user", "ada"], &caller, ""));
    let valid = run(&["token", "verify", "--require-scope", "a:b"], &caller, &secret);
    let garbage = run(&["token", "verify"], &caller, b"tokd_\xff\xfe");
    let lacking = run(&["token", "verify", "--require-scope", "b:c"], &caller, &secret);
    let id = &secret["tokd_".len()..][..22];
    let revoked = printed(run(&["token", "revoke", id, "--reason", "lost"], &caller, ""));
    let refused = run(&["token", "verify"], &caller, &secret);

    assert_eq!(secret.lines().count(), 1);
    assert!(listed.contains(id) && listed.contains("laptop") && !listed.contains(secret.trim_end()));
    assert_eq!((valid.status.code(), text(&valid.stdout).lines().next()), (Some(0), Some("VALID")));
    assert_eq!(
        (lacking.status.code(), text(&lacking.stdout).lines().next()),
        (Some(3), Some("MISSING_SCOPE"))
    );
    assert_eq!((garbage.status.code(), text(&garbage.stdout).lines().next()), (Some(3), Some("MALFORMED")));
    assert!(revoked.contains("lost"));
    assert_eq!((refused.status.code(), text(&refused.stdout).lines().next()), (Some(3), Some("REVOKED")));
}

#[test]
fn the_command_shown_by_a_first_start_creates_a_token() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let address = server.ready();
    let shown = server.stdout();
    let line = shown.lines().find(|line| line.contains(" token create ")).unwrap();

    let pasted = Command::new("sh").args(["-c", line]).output().unwrap();

    let secret = printed(pasted);
    let verified = rpc::verify(&address, &test_dir.root_secret(), secret.trim_end()).unwrap();
    assert_eq!(verified.token.unwrap().user_id, "u");
}

#[test]
fn healthcheck_succeeds_only_with_a_serving_tokend() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let address = server.ready();

    let serving = run(&["healthcheck"], &[("TOKEND_ADDRESS", &address)], "");
    server.stop();
    let gone = run(&["healthcheck"], &[("TOKEND_ADDRESS", &address)], "");

    assert_eq!(serving.status.code(), Some(0), "{}", text(&serving.stderr));
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("cannot reach a tokend at"), "{}", text(&gone.stderr));
}

#[test]
fn calls_that_do_not_end_are_cut_off_at_the_end_of_the_drain() {
    let test_dir = TestDir::new();
    let data_dir = test_dir.data_dir();
    let mut server = test_dir.start(
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir.to_str().unwrap()],
        &[("TOKEND_DRAIN_TIMEOUT", "300ms")],
    );
    let address = server.ready();
    let _call = EndlessCall::begin(&address);

    let asked = Instant::now();
    let status = server.stop();

    assert_eq!(status.code(), Some(0));
    let took = asked.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(9)).contains(&took), "{took:?}");
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let address = server.ready();
    let postgres = test_dir.postmaster();
    let _call = EndlessCall::begin(&address);
    server.signal(Signal::TERM);
    server.await_log("draining");
    assert!(is_running(postgres));

    server.signal(Signal::TERM);

    assert_eq!(server.end().code(), Some(1));
    assert!(eventually(|| !is_running(postgres)));
}

/// A call whose message never comes.
struct EndlessCall {
    _runtime: tokio::runtime::Runtime,
    _requests: SendRequest<Bytes>,
    _unfinished: SendStream<Bytes>,
}

impl EndlessCall {
    fn begin(address: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (requests, unfinished) = runtime.block_on(async {
            let stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap();
            let (requests, mut connection) = h2::client::handshake(stream).await.unwrap();
            let mut pings = connection.ping_pong().unwrap();
            tokio::spawn(connection);
            let request = Request::post(format!("{address}/tokend.v1.TokenService/Verify"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let mut requests = requests.ready().await.unwrap();
            let (_, unfinished) = requests.send_request(request.body(()).unwrap(), false).unwrap();
            // The pong shows that everything sent before has arrived.
            pings.ping(Ping::opaque()).await.unwrap();
            (requests, unfinished)
        });
        Self { _runtime: runtime, _requests: requests, _unfinished: unfinished }
    }
}
