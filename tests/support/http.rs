//! A minimal HTTP client for the tests.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// Returns a header's value; several are joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let found: Vec<&str> = self
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
            .collect();
        if found.is_empty() { None } else { Some(found.join(", ")) }
    }
}

/// Gets a page; returns its status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let reply = send(address, "GET", path, &[], "").await;
    (reply.status, reply.body)
}

/// Posts a form.
pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    fields: &[(&str, &str)],
) -> Reply {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend_from_slice(headers);
    send(address, "POST", path, &all, &form).await
}

/// Sends a request and reads the response to its end.
pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let stream = TcpStream::connect(address).await.unwrap();
    exchange(stream, &address.to_string(), method, path, headers, body).await
}

/// Gets a page from another address of this machine; `None` if nothing listens there.
pub(crate) async fn get_from(
    source: Ipv4Addr,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Reply> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    let stream = socket.connect(address).await.ok()?;
    Some(exchange(stream, &address.to_string(), "GET", path, headers, "").await)
}

/// Sends a request by this name of the server.
pub(crate) async fn send_by_name(
    address: SocketAddr,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let stream = TcpStream::connect(address).await.unwrap();
    exchange(stream, host, method, path, headers, body).await
}

async fn exchange(
    mut stream: TcpStream,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    write!(request, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Reply { status, headers, body: body.to_owned() }
}
