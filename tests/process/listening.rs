//! The program's listeners on a system without IPv6: a seccomp filter refuses it as such a kernel does.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use rustix::io::Errno;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::life::confirmed;
use super::program::{Running, TestDir, run, text};
use super::rpc;

/// The number of the `socket` system call, and the address family of IPv6.
const SOCKET: i64 = if cfg!(target_arch = "x86_64") { 41 } else { 198 };
const AF_INET6: u64 = 10;

/// Starts the program so that it cannot create an IPv6 socket.
fn start_without_ipv6(test_dir: &TestDir, arguments: &[&str]) -> Running {
    let of_ipv6 = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, AF_INET6).unwrap();
    let rules = [(SOCKET, vec![SeccompRule::new(vec![of_ipv6]).unwrap()])].into();
    let refused = SeccompAction::Errno(Errno::AFNOSUPPORT.raw_os_error().unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    // The processes that a thread starts inherit its filter.
    thread::scope(|scope| {
        let begun = scope.spawn(|| {
            seccompiler::apply_filter(&program).unwrap();
            test_dir.start(arguments, &[])
        });
        begun.join().unwrap()
    })
}

/// Waits for the log line of a listener on every IPv4 address, and returns an address to reach it.
fn address(server: &mut Running, line: &str) -> SocketAddr {
    let rest = server.await_log(&format!("{line} 0.0.0.0:"));
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    ([127, 0, 0, 1], port.parse().unwrap()).into()
}

#[test]
fn without_ipv6_the_wildcard_address_is_that_of_ipv4() {
    let test_dir = TestDir::new();
    let data_dir = test_dir.data_dir();
    let mut server = start_without_ipv6(
        &test_dir,
        &[
            "serve",
            "--listen",
            "[::]:0",
            "--http-listen",
            "[::]:0",
            "--insecure-plaintext",
            "--data-dir",
            data_dir.to_str().unwrap(),
        ],
    );

    let grpc = address(&mut server, "listening on");
    let http = address(&mut server, "HTTP on");

    assert_eq!(server.stderr().matches("this system has no IPv6").count(), 2, "{}", server.stderr());
    server.await_that("healthy", |_| rpc::is_serving(&format!("http://{grpc}")));
    let mut probe = TcpStream::connect(http).unwrap();
    probe.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
}

#[test]
fn a_specific_ipv6_address_is_refused_without_ipv6() {
    let test_dir = TestDir::new();

    let mut server = start_without_ipv6(&test_dir, &["serve", "--listen", "[::1]:0"]);

    assert_eq!(server.end().code(), Some(1));
    assert!(server.stderr().contains("cannot listen on [::1]:0"), "{}", server.stderr());
}

/// Starts the program on a private Postgres, with its console here.
fn start_with_console(test_dir: &TestDir, console: &str) -> Running {
    let data_dir = test_dir.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    test_dir.start(
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir, "--console-listen", console],
        &[],
    )
}

#[test]
fn a_first_start_tells_where_the_console_is_and_a_restart_goes_on_without_it_if_its_port_is_taken() {
    let test_dir = TestDir::new();
    let mut server = start_with_console(&test_dir, "127.0.0.1:0");

    let rest = server.await_log("console at http://tokend.localhost:");
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let link = format!("http://tokend.localhost:{port}/");
    assert!(server.stdout().contains(&format!("\n  {link}\n")), "{}", server.stdout());
    let get = || {
        let mut page = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let request = format!("GET /tokens HTTP/1.0\r\nHost: tokend.localhost:{port}\r\n\r\n");
        page.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        page.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get().contains("Secret of a token"), "{}", get());
    let address = server.ready();
    let secret = test_dir.root_secret();
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*secret)];
    let printed = text(&run(&["console", "link"], &caller, "").stdout);
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert_eq!([confirmed(&printed), confirmed(&printed)], [303, 401]);
    let json = text(&run(&["console", "link", "--json"], &caller, "").stdout);
    assert!(
        json.contains("\"url\":\"http://tokend.localhost:") && json.contains("\"expireTime\":\"2"),
        "{json}"
    );
    let portal = run(&["user", "portal", "ada", "--scope", "reports:*", "--ttl", "5m"], &caller, "");
    let printed_portal = text(&portal.stdout);
    assert!(printed_portal.starts_with(&format!("{link}portal#")), "{printed_portal}");
    assert!(text(&portal.stderr).contains("the session ends at 2"), "{}", text(&portal.stderr));
    let json = text(&run(&["user", "portal", "ada", "--json"], &caller, "").stdout);
    assert!(json.contains("\"linkExpireTime\":\"2") && json.contains("\"sessionExpireTime\":\"2"), "{json}");
    let ended = run(&["user", "revoke-portal", "ada"], &caller, "");
    assert!(text(&ended.stdout).contains("ended 2"), "{}", text(&ended.stdout));
    let reserved = run(&["user", "portal", "ada", "--scope", "tokend:read"], &caller, "");
    assert_eq!(reserved.status.code(), Some(1));
    for code in [&printed, &printed_portal] {
        assert!(!server.stderr().contains(code.trim().split_once('#').unwrap().1));
    }
    server.stop();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = start_with_console(&test_dir, &taken.local_addr().unwrap().to_string());
    server.await_log("the console is not served");
    server.ready();
    assert!(!server.stderr().contains("console at"), "{}", server.stderr());
    let address = server.ready();
    let refused = run(&["console", "link"], &[("TOKEND_ADDRESS", &address), ("TOKEND_SECRET", &secret)], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("serves no console"), "{}", text(&refused.stderr));
    let caller = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*secret)];
    let refused = run(&["user", "portal", "ada"], &caller, "");
    assert!(text(&refused.stderr).contains("serves no console"), "{}", text(&refused.stderr));
    server.stop();
}
