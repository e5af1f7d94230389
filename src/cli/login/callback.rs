//! How the code of a login reaches the command: by a request of the browser to a port of this computer, or typed. The
//! port answers only what carries the number that the command has put into the page's address (RFC 8252).

use std::io::{self, BufRead as _, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng as _;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::clock;
use crate::secret::LinkCode;

/// How long a person may take.
const LOGIN_TIMEOUT: Duration = Duration::from_mins(10);

/// How long a request may take, its longest head, and how many are read at once.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 8 << 10;
const MAX_CONNECTIONS: usize = 16;

/// The longest line that is read as a code.
const MAX_LINE_BYTES: u64 = 1 << 10;

/// Why there is no code.
#[derive(Debug, Error)]
pub enum CodeError {
    /// The person did not allow it.
    #[error("the login was not allowed in the browser")]
    Refused,
    /// Nothing came in time.
    #[error("nobody allowed the login within {} minutes: run `tokend login` again", LOGIN_TIMEOUT.as_secs() / 60)]
    Late,
    /// The typed text is no code.
    #[error("this is not the code that the page shows: run `tokend login` again")]
    NoCode,
    /// The port, standard input or randomness cannot be used.
    #[error("cannot wait for the browser")]
    Io(#[from] io::Error),
}

/// Waits for the browser.
pub(super) struct Callback {
    listener: TcpListener,
    port: u16,
    state: SecretString,
}

/// What a request says.
#[derive(Debug)]
enum Said {
    Code(SecretString),
    Refused,
    /// It is not the answer.
    Nothing,
}

impl Callback {
    /// Listens on a free port of the loopback interface.
    pub(super) async fn open() -> Result<Self, CodeError> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let port = listener.local_addr()?.port();
        let mut state = [0; 16];
        clock::randomness().try_fill_bytes(&mut state).map_err(io::Error::other)?;
        Ok(Self { listener, port, state: URL_SAFE_NO_PAD.encode(state).into() })
    }

    /// Returns the port and the number for the page's address.
    pub(super) fn parameters(&self) -> [(&'static str, String); 2] {
        [("port", self.port.to_string()), ("state", self.state.expose_secret().to_owned())]
    }

    /// Waits for the answer. Other requests, and connections that say nothing, change nothing.
    pub(super) async fn code(self) -> Result<SecretString, CodeError> {
        let mut requests = JoinSet::new();
        let waiting = async {
            loop {
                tokio::select! {
                    accepted = self.listener.accept(), if requests.len() < MAX_CONNECTIONS => {
                        // A connection that is gone already is not accepted.
                        if let Ok((connection, _)) = accepted {
                            let (port, state) = (self.port, self.state.clone());
                            requests.spawn(answer(connection, port, state));
                        }
                    }
                    Some(said) = requests.join_next() => match said.unwrap_or(Said::Nothing) {
                        Said::Code(code) => return Ok(code),
                        Said::Refused => return Err(CodeError::Refused),
                        Said::Nothing => {}
                    }
                }
            }
        };
        tokio::time::timeout(LOGIN_TIMEOUT, waiting).await.unwrap_or(Err(CodeError::Late))
    }
}

/// Reads the code that a person types or pastes.
pub(super) fn typed() -> Result<SecretString, CodeError> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line)?;
    let code = line.trim();
    LinkCode::parse(code).map(|_| code.into()).ok_or(CodeError::NoCode)
}

/// Answers one connection, and returns what it says.
async fn answer(mut connection: TcpStream, port: u16, state: SecretString) -> Said {
    let speaking = async {
        let mut head = Zeroizing::new(Vec::with_capacity(MAX_HEAD_BYTES));
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if head.len() >= MAX_HEAD_BYTES || connection.read_buf(&mut *head).await? == 0 {
                return Ok(Said::Nothing);
            }
        }
        let said = read(&head, port, state.expose_secret());
        let (status, text) = match said {
            Said::Code(_) => ("200 OK", "The terminal goes on. You can close this page."),
            Said::Refused => ("200 OK", "Nothing was allowed. You can close this page."),
            Said::Nothing => ("404 Not Found", "There is nothing here."),
        };
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>tokend login</title><p>{text}</p></html>\n"
        );
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nreferrer-policy: no-referrer\r\nx-content-type-options: nosniff\r\n\
             content-security-policy: default-src 'none'; frame-ancestors 'none'\r\nconnection: close\r\n\r\n",
            page.len()
        );
        connection.write_all(head.as_bytes()).await?;
        connection.write_all(page.as_bytes()).await?;
        connection.shutdown().await?;
        Ok(said)
    };
    let spoken: Result<Result<Said, io::Error>, _> = tokio::time::timeout(READ_TIMEOUT, speaking).await;
    spoken.ok().and_then(Result::ok).unwrap_or(Said::Nothing)
}

/// Reads the head of a request. Only a GET of the one path with the number counts, at this address: a name that somebody
/// leads here is not it.
fn read(head: &[u8], port: u16, state: &str) -> Said {
    let Ok(text) = std::str::from_utf8(head) else { return Said::Nothing };
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let Some(query) = line.strip_prefix("GET /callback?").and_then(|rest| rest.strip_suffix(" HTTP/1.1"))
    else {
        return Said::Nothing;
    };
    let mut hosts = lines
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| value.trim());
    if hosts.next() != Some(&*format!("127.0.0.1:{port}")) || hosts.next().is_some() {
        return Said::Nothing;
    }
    let only = |wanted: &str| {
        let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted);
        values.next().filter(|_| values.next().is_none()).map(|(_, value)| value.into_owned())
    };
    if !only("state").is_some_and(|said| bool::from(said.as_bytes().ct_eq(state.as_bytes()))) {
        return Said::Nothing;
    }
    match (only("code"), only("error")) {
        (Some(code), None) if LinkCode::parse(&code).is_some() => Said::Code(code.into()),
        (None, Some(_)) => Said::Refused,
        _ => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    const CODE: &str = "BBBBBBBBBBBBBBBBBBBBBA";

    /// Returns the code that a request has, `refused`, or `nothing`.
    fn said(line: &str, host: &str) -> String {
        match read(format!("{line}\r\nUser-Agent: x\r\n{host}\r\n\r\n").as_bytes(), 49152, STATE) {
            Said::Code(code) => code.expose_secret().to_owned(),
            Said::Refused => "refused".to_owned(),
            Said::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn only_the_one_request_with_the_number_is_the_answer() {
        let good = format!("GET /callback?code={CODE}&state={STATE} HTTP/1.1");
        let host = "Host: 127.0.0.1:49152";
        assert_eq!(said(&good, host), CODE);
        assert!(!format!("{:?}", Said::Code(CODE.into())).contains(CODE));
        let refused = format!("GET /callback?error=access_denied&state={STATE} HTTP/1.1");
        assert_eq!(said(&refused, host), "refused");
        for line in [
            good.replace("GET", "POST"),
            good.replace("/callback", "/callback/"),
            good.replace("/callback", "http://127.0.0.1:49152/callback"),
            good.replace("1.1", "1.0"),
            good.replace(STATE, "AAAAAAAAAAAAAAAAAAAAAB"),
            good.replace(STATE, ""),
            good.replace(&format!("&state={STATE}"), ""),
            good.replace(CODE, "short"),
            good.replace("&state", &format!("&code={CODE}&state")),
            good.replace("&state", &format!("&state={STATE}&state")),
            good.replace("&state", "&error=x&state"),
            format!("GET /callback?state={STATE} HTTP/1.1"),
        ] {
            assert_eq!(said(&line, host), "nothing", "{line}");
        }
        for host in [
            "Host: localhost:49152",
            "Host: evil.example:49152",
            "Host: 127.0.0.1",
            "Host: 127.0.0.1:49152\r\nHost: 127.0.0.1:49152",
            "X: y",
        ] {
            assert_eq!(said(&good, host), "nothing", "{host}");
        }
    }

    #[tokio::test]
    async fn silent_connections_and_other_requests_do_not_stop_the_answer() {
        let callback = Callback::open().await.unwrap();
        let [(_, port), (_, state)] = callback.parameters();
        let address = format!("127.0.0.1:{port}");
        let waiting = tokio::spawn(callback.code());
        let _silent = TcpStream::connect(&address).await.unwrap();
        let ask = async |line: &str| {
            let mut connection = TcpStream::connect(&address).await.unwrap();
            let head = format!("{line}\r\nHost: {address}\r\n\r\n");
            connection.write_all(head.as_bytes()).await.unwrap();
            let mut reply = String::new();
            connection.read_to_string(&mut reply).await.unwrap();
            reply
        };
        assert!(ask("GET /favicon.ico HTTP/1.1").await.starts_with("HTTP/1.1 404"));
        let forged = ask(&format!("GET /callback?code={CODE}&state={STATE} HTTP/1.1")).await;
        assert!(forged.starts_with("HTTP/1.1 404"), "{forged}");
        let answered = ask(&format!("GET /callback?code={CODE}&state={state} HTTP/1.1")).await;
        assert!(answered.starts_with("HTTP/1.1 200") && !answered.contains(CODE), "{answered}");
        assert_eq!(waiting.await.unwrap().unwrap().expose_secret(), CODE);
    }
}
