//! `DATABASE_URL` means the same for tokend as for psql: the real psql and the built program
//! connect to the same server, which only records their requests.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::program::{TestDir, run};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// How a program connected.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    by: &'static str,
    for_tls: bool,
    /// The parameters of its startup message, once it has sent one.
    session: Option<BTreeMap<String, String>>,
}

/// A server that refuses every client, on a socket and on both loopback addresses.
struct Server {
    test_dir: TestDir,
    port: u16,
    asked: Receiver<Asked>,
}

impl Server {
    fn start() -> Self {
        let test_dir = TestDir::new();
        let (sender, asked) = channel();
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let socket = UnixListener::bind(test_dir.path().join(format!(".s.PGSQL.{port}"))).unwrap();
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
        write_down("127.0.0.1", tcp.into_incoming_streams(), sender.clone());
        write_down("::1", six.into_incoming_streams(), sender.clone());
        write_down("socket", socket.into_incoming_streams(), sender);
        Self { test_dir, port, asked }
    }

    fn filled(&self, text: &str) -> String {
        let directory = self.test_dir.path().to_str().unwrap();
        text.replace("{socket}", directory)
            .replace("{encoded}", &directory.replace('/', "%2F"))
            .replace("{port}", &self.port.to_string())
    }

    /// Returns psql's connection, if it makes one.
    fn psql(&self, url: &str, variables: &[(&str, String)]) -> Option<Asked> {
        let output = Command::new("psql")
            .args(["-X", "-w", "-c", "", &self.filled(url)])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success());
        self.first("psql")
    }

    /// Returns tokend's connection, if it makes one, and its error message.
    fn tokend(&self, url: &str, variables: &[(&str, String)]) -> (Option<Asked>, String) {
        let url = self.filled(url);
        let mut all = vec![("DATABASE_URL", &*url)];
        all.extend(variables.iter().map(|(name, value)| (*name, &**value)));
        let output = run(&["migrate"], &all, "");
        assert!(!output.status.success());
        (self.first("tokend"), String::from_utf8(output.stderr).unwrap())
    }

    /// Returns the first connection recorded since the last call. A final connection to each
    /// listener shows that no other one is waiting there.
    fn first(&self, program: &str) -> Option<Asked> {
        const LAST: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0last\0\0";
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap().write_all(LAST).unwrap();
        TcpStream::connect((Ipv6Addr::LOCALHOST, self.port)).unwrap().write_all(LAST).unwrap();
        let socket = self.test_dir.path().join(format!(".s.PGSQL.{}", self.port));
        UnixStream::connect(socket).unwrap().write_all(LAST).unwrap();
        let is_last = |asked: &Asked| {
            asked
                .session
                .as_ref()
                .is_some_and(|session| session.get("user").is_some_and(|user| user == "last"))
        };
        let (mut first, mut doors) = (None, 3);
        while doors > 0 {
            let asked = self.asked.recv().unwrap();
            if is_last(&asked) {
                doors -= 1;
            } else {
                first.get_or_insert(asked);
            }
        }
        let mut first = first?;
        if let Some(session) = &mut first.session {
            // Each sends its own name if none was given.
            if session.get("application_name").is_some_and(|name| name == program) {
                session.insert("application_name".to_owned(), "its own".to_owned());
            }
        }
        Some(first)
    }
}

trait Streams {
    type Stream: Read + Write + Send + 'static;
    fn into_incoming_streams(self) -> impl Iterator<Item = Self::Stream> + Send + 'static;
}

impl Streams for TcpListener {
    type Stream = TcpStream;
    fn into_incoming_streams(self) -> impl Iterator<Item = Self::Stream> + Send + 'static {
        std::iter::from_fn(move || self.accept().ok().map(|(stream, _)| stream))
    }
}

impl Streams for UnixListener {
    type Stream = UnixStream;
    fn into_incoming_streams(self) -> impl Iterator<Item = Self::Stream> + Send + 'static {
        std::iter::from_fn(move || self.accept().ok().map(|(stream, _)| stream))
    }
}

fn write_down<S: Read + Write + Send + 'static>(
    by: &'static str,
    streams: impl Iterator<Item = S> + Send + 'static,
    asked: Sender<Asked>,
) {
    thread::spawn(move || {
        for mut stream in streams {
            let mut for_tls = false;
            let session = session(&mut stream, &mut for_tls);
            if asked.send(Asked { by, for_tls, session }).is_err() {
                return;
            }
            // FATAL, invalid authorization: no client retries after this.
            let _ = stream.write_all(b"E\0\0\0\x1cSFATAL\0C28000\0Mrefused\0\0");
        }
    });
}

/// Reads the startup message of a connection, and declines TLS.
fn session(stream: &mut (impl Read + Write), for_tls: &mut bool) -> Option<BTreeMap<String, String>> {
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes(head[..4].try_into().unwrap());
        let request = u32::from_be_bytes(head[4..].try_into().unwrap());
        if [SSL_REQUEST, GSS_REQUEST].contains(&request) {
            *for_tls |= request == SSL_REQUEST;
            stream.write_all(b"N").ok()?;
            continue;
        }
        let mut body = vec![0; length as usize - 8];
        stream.read_exact(&mut body).ok()?;
        let text = String::from_utf8(body).unwrap();
        let words: Vec<&str> = text.split('\0').collect();
        let pairs = words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned()));
        let compared = ["user", "database", "application_name", "options"];
        return Some(pairs.filter(|(name, _)| compared.contains(&&**name)).collect());
    }
}

fn has_psql() -> bool {
    let found = Command::new("psql").arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(found || std::env::var("CI_ALL").as_deref() != Ok("1"), "psql is missing");
    found
}

#[test]
fn a_database_url_means_the_same_to_tokend_and_psql() {
    if !has_psql() {
        return;
    }
    let server = Server::start();
    for (url, variables) in [
        ("postgres://u@127.0.0.1:{port}/d", &[][..]),
        // Without a user name: the account of the operating system, or PGUSER.
        ("postgres://127.0.0.1:{port}/d?sslmode=disable", &[]),
        ("postgres://127.0.0.1:{port}/d", &[("PGUSER", "v")]),
        ("postgres://127.0.0.1:{port}", &[("PGDATABASE", "e")]),
        ("postgres://u@[::1]:{port}/d", &[]),
        ("postgres://u@/d?host={socket}&port={port}", &[]),
        ("postgres:///d?host={socket}&port={port}&user=u", &[]),
        ("postgres://u@{encoded}:{port}/d", &[]),
        ("postgresql://u@{encoded}/d", &[("PGPORT", "{port}")]),
        ("postgres://%75:p%2F%40%3A%3F@%31%32%37.0.0.1:{port}/a%20b", &[]),
        ("postgres://u:p?w:x@127.0.0.1:{port}/a+b#c", &[]),
        ("postgres://u@127.0.0.1:{port}/d?user=v&dbname=e", &[]),
        ("postgres://", &[("PGHOST", "{socket}"), ("PGPORT", "{port}"), ("PGUSER", "v")]),
        (
            "postgres://u@127.0.0.1:{port}/d",
            &[("PGHOST", "::1"), ("PGPORT", "1"), ("PGUSER", "v"), ("PGDATABASE", "e")],
        ),
        ("postgres://u@nowhere.invalid:{port}/d", &[("PGHOSTADDR", "::1")]),
        ("postgres://u@nowhere.invalid:{port}/d?hostaddr=127.0.0.1", &[]),
        ("postgres://u@127.0.0.1:{port}/d?sslmode=disable", &[]),
        ("postgres://u@127.0.0.1:{port}/d?sslmode=require", &[]),
        ("postgres://u@127.0.0.1:{port}/d?ssl=true", &[]),
        ("postgres://u@127.0.0.1:{port}/d", &[("PGSSLMODE", "require")]),
        ("postgres://u@127.0.0.1:{port}/d?sslmode=prefer", &[("PGSSLMODE", "require")]),
        ("postgres://u@/d?host={socket}&port={port}&sslmode=require", &[]),
        ("postgres://u@/d?host={socket}&port={port}", &[("PGSSLMODE", "verify-full")]),
        ("postgres://u@127.0.0.1:{port}/d?application_name=a%20b", &[("PGAPPNAME", "c")]),
        ("postgres://u@127.0.0.1:{port}/d?fallback_application_name=x", &[("PGAPPNAME", "c")]),
        ("postgres://u@127.0.0.1:{port}/d?options=-c%20jit%3Doff", &[]),
        ("postgres://u@127.0.0.1:{port}/d", &[("PGOPTIONS", "-c jit=off")]),
        ("postgres://u@127.0.0.1:{port}/d?target_session_attrs=read-write", &[]),
    ] {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, server.filled(value))).collect();

        let psql = server.psql(url, &variables);
        let (tokend, printed) = server.tokend(url, &variables);

        assert!(psql.is_some(), "{url}: psql does not ask");
        assert_eq!(tokend, psql, "{url} {variables:?}: {printed}");
    }
}

#[test]
fn database_urls_that_psql_refuses_are_refused_with_the_wrong_part() {
    if !has_psql() {
        return;
    }
    let server = Server::start();
    for (url, part) in [
        ("postgres://u@127.0.0.1:no/d", "port"),
        ("postgres://u@127.0.0.1:0/d", "port"),
        ("postgres://u@127.0.0.1:65536/d", "port"),
        ("postgres://u:hunter/two@127.0.0.1:{port}/d", "%2F"),
        ("postgres://u@[::1:{port}/d", "brackets"),
        ("postgres://u:%4@127.0.0.1:{port}/d", "'%'"),
        ("postgres://u@127.0.0.1:{port}/d?sslmode", "parameter"),
        ("postgres://u@127.0.0.1:{port}/d?sslmod=require", "parameter"),
        ("postgres://u@127.0.0.1:{port}/d?sslmode=on", "sslmode"),
        ("postgres://u@127.0.0.1:{port}/d?target_session_attrs=master", "target_session_attrs"),
    ] {
        assert_eq!(server.psql(url, &[]), None, "{url}");
        let (tokend, printed) = server.tokend(url, &[]);

        assert_eq!(tokend, None, "{url}");
        assert!(
            printed.contains("database URL from DATABASE_URL") && printed.contains(part),
            "{url}: {printed}"
        );
        assert!(!printed.contains("hunter"), "{printed}");
    }
}
