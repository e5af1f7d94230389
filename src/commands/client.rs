//! A connection to a running tokend: its address, the caller's secret, a deadline.
//!
//! Used by the operator's commands. The secret comes from the environment or from a file, goes
//! into the `authorization` metadata, marked as sensitive, and nowhere else.

use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokend_core::link::is_this_machine;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use zeroize::Zeroizing;

use super::CommandError;
use crate::config::{Environment, Switch};
use crate::grpc::proto::token_service_client::TokenServiceClient;
use crate::private_file::is_exposed;

const DEFAULT_ADDRESS: &str = "http://127.0.0.1:50051";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Which tokend to ask.
#[derive(Args)]
pub(super) struct AddressFlag {
    #[arg(
        long,
        value_name = "URL",
        help = "Address of a running tokend, http://HOST:PORT or https://HOST:PORT [env: TOKEND_ADDRESS] \
                [default: http://127.0.0.1:50051]"
    )]
    address: Option<String>,

    #[arg(
        long,
        value_name = "FILE",
        help = "CA of the server's certificate, PEM, beside those that the system trusts [env: TOKEND_CA]"
    )]
    ca: Option<PathBuf>,

    #[arg(
        long,
        help = "Ask a tokend on another host in plaintext: whoever can read the network on the way sees the caller's \
                secret [env: TOKEND_ADDRESS_INSECURE]"
    )]
    address_insecure: bool,
}

/// Why a running tokend could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address is none.
    #[error("the address must be http://HOST:PORT or https://HOST:PORT (--address or TOKEND_ADDRESS)")]
    Address,
    /// The caller's secret would cross the network readable.
    #[error(
        "refusing to ask another host in plaintext: write https:// into the address, or say --address-insecure if \
         the network in between is trusted"
    )]
    Plaintext,
    /// The CA cannot be read.
    #[error("cannot read the CA {}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The CA cannot be used.
    #[error("the CA or the system's own certificates cannot be used")]
    Tls(#[source] tonic::transport::Error),
    /// Nothing answers at the address.
    #[error("cannot reach a tokend at {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// No secret is given.
    #[error("no secret to call with: set TOKEND_SECRET, or TOKEND_SECRET_FILE to its file")]
    NoSecret,
    /// The file with the secret cannot be read.
    #[error("cannot read the file of TOKEND_SECRET_FILE, {}", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file with the secret can be read by others.
    #[error(
        "others can read the file of TOKEND_SECRET_FILE, {}: chmod 600 it, and rotate the token if they may have",
        path.display()
    )]
    SecretFileExposed {
        /// The file.
        path: PathBuf,
    },
    /// What was given as a secret cannot be one.
    #[error("the text in {0} is no secret: it must be one word of letters, digits and _")]
    NotASecret(&'static str),
    /// Standard input cannot be read.
    #[error("cannot read a secret from standard input")]
    Input(#[source] io::Error),
    /// The server answered without what it promises.
    #[error("the server's answer lacks its {0}")]
    Incomplete(&'static str),
    /// The server says that it cannot serve.
    #[error("the server is not serving ({0})")]
    NotServing(&'static str),
    /// The server says nothing in time.
    #[error("the server did not answer within {} s", .0.as_secs())]
    Silent(Duration),
}

/// Where a running tokend listens.
pub(super) struct ServerAddress {
    text: String,
    endpoint: Endpoint,
}

impl AddressFlag {
    /// Takes the flags, else the environment, else the default.
    pub(super) fn resolve(self, environment: &Environment) -> Result<ServerAddress, CommandError> {
        let given = match self.address {
            Some(address) => Some(address),
            None => environment.text("TOKEND_ADDRESS")?,
        };
        let text = given.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        // User information in a URL would be a secret on a command line, and is never sent.
        let encrypted = text.starts_with("https://");
        if !(encrypted || text.starts_with("http://")) || text.contains('@') {
            return Err(ClientError::Address.into());
        }
        let mut endpoint = Endpoint::from_shared(text.clone()).map_err(|_| ClientError::Address)?;
        let insecure = match Switch::of_flag(self.address_insecure) {
            Some(said) => Some(said),
            None => environment.value("TOKEND_ADDRESS_INSECURE")?,
        };
        let host = endpoint.uri().host().unwrap_or_default();
        if !encrypted && !is_this_machine(host) && !insecure.is_some_and(Switch::is_on) {
            return Err(ClientError::Plaintext.into());
        }
        if encrypted {
            let mut tls = ClientTlsConfig::new().with_enabled_roots();
            let ca = match self.ca {
                Some(path) => Some(path),
                None => environment.value("TOKEND_CA")?,
            };
            if let Some(path) = ca {
                let pem = fs::read(&path).map_err(|source| ClientError::Ca { path, source })?;
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls).map_err(ClientError::Tls)?;
        }
        Ok(ServerAddress { text, endpoint: endpoint.connect_timeout(CONNECT_TIMEOUT) })
    }
}

impl ServerAddress {
    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Channel, ClientError> {
        let connected = self.endpoint.connect().await;
        connected.map_err(|source| ClientError::Unreachable { address: self.text.clone(), source })
    }
}

/// A caller's connection to the token service.
pub(super) struct Client {
    service: TokenServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
}

impl Client {
    /// Reads the caller's secret, then connects.
    pub(super) async fn open(address: AddressFlag, environment: &Environment) -> Result<Self, CommandError> {
        let address = address.resolve(environment)?;
        let authorization = authorization(environment)?;
        let channel = address.connect().await?;
        Ok(Self { service: TokenServiceClient::new(channel), authorization })
    }

    /// The service, to call with what [`Self::request`] makes.
    pub(super) fn service(&mut self) -> &mut TokenServiceClient<Channel> {
        &mut self.service
    }

    /// Wraps a message with the caller's secret and a deadline.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.request_for_ever(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// Wraps a message with the caller's secret alone, for a stream that ends when its reader says.
    pub(super) fn request_for_ever<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}

/// Makes the caller's metadata: `TOKEND_SECRET` wins over `TOKEND_SECRET_FILE`.
fn authorization(environment: &Environment) -> Result<MetadataValue<Ascii>, CommandError> {
    let (secret, origin) = if let Some(secret) = environment.text("TOKEND_SECRET")? {
        (SecretString::from(secret), "TOKEND_SECRET")
    } else if let Some(path) = environment.value::<PathBuf>("TOKEND_SECRET_FILE")? {
        (first_line(&secret_file(path)?), "the file of TOKEND_SECRET_FILE")
    } else {
        return Err(ClientError::NoSecret.into());
    };
    let word = secret.expose_secret();
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(ClientError::NotASecret(origin).into());
    }
    let header = Zeroizing::new(format!("Bearer {word}"));
    let mut value = MetadataValue::try_from(header.as_str()).map_err(|_| ClientError::NotASecret(origin))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads the file with the caller's secret, which nobody else may.
fn secret_file(path: PathBuf) -> Result<Zeroizing<String>, ClientError> {
    let read = fs::File::open(&path).and_then(|mut file| {
        // Asked of the open file: the path may lead elsewhere a moment later.
        let exposed = is_exposed(&file.metadata()?);
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text)?;
        Ok((exposed, text))
    });
    match read {
        Ok((false, text)) => Ok(text),
        Ok((true, _)) => Err(ClientError::SecretFileExposed { path }),
        Err(source) => Err(ClientError::SecretFile { path, source }),
    }
}

/// Takes one line ending off, as editors and `echo` leave one, and nothing else.
pub(super) fn first_line(text: &str) -> SecretString {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Account;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::of_pairs(pairs, Account::Ordinary)
    }

    #[test]
    fn the_secret_itself_wins_over_its_file() {
        let value =
            authorization(&environment(&[("TOKEND_SECRET", "tokd_a"), ("TOKEND_SECRET_FILE", "/nowhere")]));

        let value = value.unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer tokd_a");
        assert!(value.is_sensitive());
    }

    #[test]
    fn one_line_ending_of_a_secret_file_is_taken_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "tokd_b\n").unwrap();
        let read = || authorization(&environment(&[("TOKEND_SECRET_FILE", path.to_str().unwrap())]));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = read();
        assert!(matches!(refused, Err(CommandError::Client(ClientError::SecretFileExposed { .. }))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read().unwrap().to_str().unwrap(), "Bearer tokd_b");
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_and_not_repeated() {
        let refused = authorization(&environment(&[("TOKEND_SECRET", "canary text")]));

        let error = refused.unwrap_err();
        assert!(matches!(error, CommandError::Client(ClientError::NotASecret("TOKEND_SECRET"))));
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    #[test]
    fn a_secret_leaves_this_machine_by_tls_unless_it_is_said() {
        let resolve = |address: &str, address_insecure, pairs: &[(&str, &str)]| {
            let flag = AddressFlag { address: Some(address.to_owned()), ca: None, address_insecure };
            flag.resolve(&environment(pairs)).err()
        };
        for address in
            ["http://127.0.0.1:1", "http://[::1]:1", "http://[::ffff:127.0.0.1]:1", "http://localhost:1"]
        {
            assert!(resolve(address, false, &[]).is_none(), "{address}");
        }
        for address in
            ["http://tokend.example:1", "http://192.0.2.1:1", "http://0.0.0.0:1", "http://127.0.0.1.example"]
        {
            let refused = resolve(address, false, &[]);
            assert!(matches!(refused, Some(CommandError::Client(ClientError::Plaintext))), "{address}");
            assert!(resolve(address, true, &[]).is_none(), "{address}");
            assert!(resolve(address, false, &[("TOKEND_ADDRESS_INSECURE", "true")]).is_none(), "{address}");
        }
        let flag = AddressFlag {
            address: Some("https://tokend.example:1".to_owned()),
            ca: None,
            address_insecure: false,
        };
        assert!(flag.resolve(&environment(&[])).is_ok());
    }

    #[test]
    fn an_address_that_is_no_plain_url_is_refused() {
        for address in [
            "ftp://localhost:1",
            "localhost:1",
            "https://u:p@localhost:1",
            "http://u:p@localhost:1",
            "http://",
        ] {
            let flag = AddressFlag { address: Some(address.to_owned()), ca: None, address_insecure: false };

            let refused = flag.resolve(&environment(&[])).err();

            assert!(matches!(refused, Some(CommandError::Client(ClientError::Address))), "{address}");
        }
    }
}
