//! The output of a private Postgres's first start: the path of the root secret, on a terminal the
//! secret itself, and commands to paste next. For people, on standard output. No line puts the
//! secret on a command line: `tokend` reads it from its file, grpcurl from the environment.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use crate::secret::LinkCode;

/// The values in the greeting.
pub(super) struct Greeting<'a> {
    /// How this program was called.
    pub(super) program: &'a str,
    /// The address that it listens on.
    pub(super) address: SocketAddr,
    /// Whether it uses TLS there.
    pub(super) encrypted: bool,
    /// The first root secret, if a person reads the output: a journal or a file would keep it.
    pub(super) secret: Option<&'a SecretString>,
    /// The path of the secret.
    pub(super) secret_path: &'a Path,
    /// The address of the console, if it is served.
    pub(super) console: Option<String>,
    /// The code of a link to the console, if a person reads the output.
    pub(super) code: Option<&'a LinkCode>,
}

impl Greeting<'_> {
    /// Writes the greeting.
    pub(super) fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let path = self.secret_path.to_string_lossy();
        let file = shell_word(&path);
        let program = shell_word(self.program);
        let address = reachable(self.address);
        let (scheme, plaintext) = if self.encrypted { ("https", "") } else { ("http", "-plaintext ") };
        let elsewhere = if address == SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)) && !self.encrypted {
            String::new()
        } else {
            format!("TOKEND_ADDRESS={scheme}://{address} ")
        };
        match self.secret.map(ExposeSecret::expose_secret) {
            Some(secret) => write!(
                output,
                "The first root secret, shown only this once and stored in {path} (readable only by its \
                 owner):\n\n  {secret}\n\n"
            )?,
            None => write!(output, "The first root secret is in {path} (readable only by its owner).\n\n")?,
        }
        write!(
            output,
            "\
Create a token with this program:

  {elsewhere}TOKEND_SECRET_FILE={file} {program} token create --user u --name n --ttl 30d

or with grpcurl, which takes the secret from the environment:

  export TOKEND_SECRET=\"$(cat {file})\"
  grpcurl {plaintext}-expand-headers -H 'authorization: Bearer ${{TOKEND_SECRET}}' \\
    -d '{{\"userId\": \"u\", \"name\": \"n\", \"ttl\": \"2592000s\"}}' \\
    {address} tokend.v1.TokenService/CreateToken

"
        )?;
        if let Some(console) = &self.console {
            match self.code {
                Some(code) => write!(
                    output,
                    "or in a browser, by this link, which signs in once and within a minute:\n\n  {console}link#{}\n\n\
                     Later, make another link:\n\n  {elsewhere}TOKEND_SECRET_FILE={file} {program} console link\n\n",
                    code.render().expose_secret()
                )?,
                None => {
                    write!(output, "or in a browser, where you sign in with the secret:\n\n  {console}\n\n")?;
                }
            }
        }
        output.flush()
    }
}

/// Returns an address that a client of this machine can use, even if the server listens on all.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Quotes a text for sh if necessary.
fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(address: &str, path: &str) -> String {
        greeting_with(Some(&SecretString::from("tokd_canary")), address, path)
    }

    fn greeting_with(secret: Option<&SecretString>, address: &str, path: &str) -> String {
        // A journal or a file gets no link either.
        let code = secret.and_then(|_| LinkCode::parse("AAECAwQFBgcICQoLDA0ODw"));
        let greeting = Greeting {
            program: "tokend",
            address: address.parse().unwrap(),
            encrypted: false,
            secret,
            secret_path: Path::new(path),
            console: Some("http://tokend.localhost:50080/".to_owned()),
            code: code.as_ref(),
        };
        let mut output = Vec::new();
        greeting.write(&mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn the_secret_has_its_own_line_and_is_in_no_command_line() {
        let text = greeting("127.0.0.1:50051", "/data/root-secret");

        let lines: Vec<_> = text.lines().filter(|line| line.contains("canary")).collect();

        assert_eq!(lines, ["  tokd_canary"]);
        assert!(text.contains(
            "\n  TOKEND_SECRET_FILE=/data/root-secret tokend token create --user u --name n --ttl 30d\n"
        ));
        assert!(text.contains("-H 'authorization: Bearer ${TOKEND_SECRET}'"));
        assert!(text.contains("\n  http://tokend.localhost:50080/link#AAECAwQFBgcICQoLDA0ODw\n\n"), "{text}");
        assert!(text.ends_with("\n  TOKEND_SECRET_FILE=/data/root-secret tokend console link\n\n"), "{text}");
    }

    #[test]
    fn without_a_terminal_only_the_path_of_the_secret_is_printed() {
        let text = greeting_with(None, "127.0.0.1:50051", "/data/root-secret");

        assert!(text.starts_with("The first root secret is in /data/root-secret "), "{text}");
        assert!(text.contains("\n  TOKEND_SECRET_FILE=/data/root-secret tokend token create"), "{text}");
        assert!(text.ends_with("\n  http://tokend.localhost:50080/\n\n"), "{text}");
    }

    #[test]
    fn commands_with_another_address_or_an_unusual_path_can_be_pasted() {
        let text = greeting("0.0.0.0:7000", "/it's here/root-secret");

        assert!(text.contains(
            r"TOKEND_ADDRESS=http://127.0.0.1:7000 TOKEND_SECRET_FILE='/it'\''s here/root-secret' tokend"
        ));
        assert!(text.contains("127.0.0.1:7000 tokend.v1.TokenService/CreateToken"));
    }
}
