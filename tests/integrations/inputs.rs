//! Valid and malformed input from clients through a gateway: none causes an outage or admits an
//! unauthorized client, and preflights reach the backend without an identity. `gateways` runs this
//! for each gateway.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::gateways::{CLIENT, spellings};
use crate::support::in_time;

type Header<'a> = (&'a str, &'a [u8]);

/// Sends a request with these headers, of any bytes; returns the status and the body, decoded lossily.
pub(crate) async fn ask(
    gateway: SocketAddr,
    method: &str,
    headers: &[Header<'_>],
    body: &[u8],
) -> (u16, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((CLIENT, 0).into()).unwrap();
    let mut stream = socket.connect(gateway).await.unwrap();
    let mut request = format!("{method} /reports?scope=none HTTP/1.1\r\nHost: {gateway}\r\n").into_bytes();
    for (name, value) in headers {
        request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend(body);
    // A server that refuses the request may do so before it has read everything, and close.
    let _ = stream.write_all(&request).await;
    let mut answer = Vec::new();
    in_time("an answer", async {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            answer.extend(&piece[..read]);
        }
    })
    .await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// Authorized clients are accepted, or refused because of their input; nothing causes an outage.
pub(crate) async fn odd_requests_of_who_may_are_no_outage(gateway: SocketAddr, bearer: &str) {
    let many: Vec<String> = (0..150).map(|number| format!("x-many-{number}")).collect();
    let many: Vec<Header<'_>> = many.iter().map(|name| (&**name, &b"1"[..])).collect();
    let scopes = "a ".repeat(1000);
    let long = vec![b'x'; 7000];
    for (what, headers) in [
        ("no scope", &[("x-tokend-require-scopes", &b"NO SCOPE"[..])][..]),
        ("no text", &[("x-tokend-require-scopes", b"\xff\xfe")]),
        ("many scopes", &[("x-tokend-require-scopes", scopes.as_bytes())]),
        ("many headers", &many),
        ("long headers", &[("x-a", &long), ("x-b", &long), ("x-c", &long)]),
        ("a control character", &[("x-odd", b"a\x01b")]),
        ("no ASCII", &[("x-odd", b"a\xe9b")]),
        ("no name of a header", &[("x{}\"\\", b"1")]),
        ("an odd trace", &[("traceparent", b"\xff"), ("traceparent", b"x")]),
        ("odd addresses", &[("x-forwarded-for", b"\xff,,"), ("x-forwarded-for", b"nonsense")]),
        ("an odd expectation", &[("expect", b"nonsense")]),
        ("a header to be dropped", &[("connection", b"close, X-Tokend-User, X_Tokend_User")]),
    ] {
        let mut all = vec![("authorization", bearer.as_bytes()), ("connection", b"close")];
        all.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
        all.extend(headers);
        let (status, body) = ask(gateway, "GET", &all, b"").await;
        assert!(matches!(status, 200 | 400 | 403 | 413 | 417 | 431), "{what}: {status} {body}");
        assert!(status != 200 || body.contains("x-tokend-user: ada\n"), "{what}: {body}");
    }
}

/// Unauthorized clients are refused, whatever is wrong with their credential.
pub(crate) async fn odd_credentials_are_refused(gateway: SocketAddr, bearer: &str) {
    let bearer = bearer.as_bytes();
    let long = [b"Bearer ".to_vec(), vec![b'a'; 14_000]].concat();
    let both = [bearer, b", ", bearer].concat();
    for (what, values) in [
        ("none", &[][..]),
        ("an empty one", &[&b""[..]]),
        ("a long one", &[&long]),
        ("a control character", &[b"Bearer a\x01b"]),
        ("a deleted character", &[b"Bearer a\x7fb"]),
        ("a tab", &[b"Bearer\ta"]),
        ("no ASCII", &[b"Bearer \xff\xfe"]),
        ("two", &[bearer, bearer]),
        ("a good one behind another", &[b"Bearer x", bearer]),
        ("two in one", &[&both]),
        ("no Bearer", &[b"Basic YTpi"]),
    ] {
        let mut headers: Vec<Header<'_>> = values.iter().map(|value| ("authorization", *value)).collect();
        headers.push(("connection", b"close"));
        let (status, body) = ask(gateway, "GET", &headers, b"").await;
        assert!(matches!(status, 400 | 401 | 431), "{what}: {status} {body}");
        assert!(!body.contains(":method: "), "{what}: the backend was asked");
    }
}

/// A preflight reaches the backend, without identity and credential; nothing else that looks like
/// one does.
pub(crate) async fn preflights_reach_the_backend_as_nobodys(gateway: SocketAddr, bearer: &str) {
    let names = ["x-tokend-user", "x-tokend-organization", "x-tokend-token-id", "x-tokend-scopes"];
    let forged: Vec<String> = names.into_iter().flat_map(spellings).collect();
    let question: [Header<'_>; 3] = [
        ("origin", b"https://app.example.org"),
        ("access-control-request-method", b"PUT"),
        ("connection", b"close"),
    ];
    let mut headers = [&question[..], &[("authorization", bearer.as_bytes())]].concat();
    headers.extend(forged.iter().map(|name| (&**name, &b"forged"[..])));

    let (status, body) = ask(gateway, "OPTIONS", &headers, b"").await;

    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains(":method: OPTIONS\n") && body.contains("access-control-request-method: PUT\n"),
        "{body}"
    );
    let lines = body.lines().filter_map(|line| line.split_once(": "));
    let reported: Vec<_> = lines.filter(|(name, _)| name.replace('_', "-").starts_with("x-tokend")).collect();
    assert!(reported.is_empty() && !body.contains(bearer), "{body}");

    let overridden = [("x-http-method-override", &b"OPTIONS"[..]), ("x-forwarded-method", b"OPTIONS")];
    for (method, headers) in [
        ("OPTIONS", [&question[..1], &question[2..]].concat()),
        ("GET", question.to_vec()),
        ("POST", question.to_vec()),
        ("POST", [&question[..], &overridden].concat()),
    ] {
        let (status, body) = ask(gateway, method, &headers, b"").await;
        assert_eq!(status, 401, "{method} {headers:?}: {body}");
    }
    // In HTTP this is another method, which some gateways do not know.
    let (status, body) = ask(gateway, "options", &question, b"").await;
    assert!(matches!(status, 400 | 401 | 405 | 501), "{status}: {body}");
}
