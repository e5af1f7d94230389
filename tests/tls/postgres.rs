//! A Postgres reached over TCP and TLS: tokend verifies its certificate, or is configured not to.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokend::store::{Connection, StoreError};

use super::authority::{Authority, Signed};
use crate::support::eventually;

/// Runs a server in a separate directory until its input is closed, as an account that is not root.
const SERVER: &str = r#"
set -eu
cd "$1"
port=$2
bin=$(dirname "$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb 2>/dev/null | tail -n 1)")
as=
if [ "$(id -u)" = 0 ]; then
    account=nobody
    if id -u postgres >/dev/null 2>&1; then account=postgres; fi
    chown -R "$account" .
    as="setpriv --reuid=$account --regid=$(id -g "$account") --clear-groups"
fi
$as "$bin/initdb" --auth=trust --no-sync --username=tokend --pgdata data >/dev/null
$as "$bin/postgres" -D data -F -p "$port" -c listen_addresses=127.0.0.1 -c "unix_socket_directories=$1" \
    -c ssl=on -c "ssl_cert_file=$1/certificate.pem" -c "ssl_key_file=$1/key.pem" >log 2>&1 &
server=$!
trap 'kill -QUIT $server; wait $server || true' EXIT
cat >/dev/null
"#;

struct Postgres {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl Postgres {
    fn start(signed: &Signed) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::Builder::new().prefix("tokend-tls-").tempdir_in("/tmp").unwrap();
        let path = directory.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(path.join("certificate.pem"), &signed.certificate).unwrap();
        std::fs::write(path.join("key.pem"), &signed.key).unwrap();
        std::fs::set_permissions(path.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("sh")
            .args(["-c", SERVER, "sh", path.to_str().unwrap(), &port.to_string()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, directory, port }
    }

    fn url(&self, host: &str, parameters: &str) -> PgConnectOptions {
        let url = format!("postgres://tokend@{host}:{}/postgres?{parameters}", self.port);
        PgConnectOptions::from_str(&url).unwrap()
    }

    /// Runs `tokend migrate --plan` against this server; returns the error message if it fails.
    fn asked_by_tokend(&self, host: &str, parameters: &str) -> Result<(), String> {
        self.asked_where(None, host, parameters)
    }

    /// Runs it on a machine whose public authorities are those of the file `public`.
    fn asked_where(&self, public: Option<&str>, host: &str, parameters: &str) -> Result<(), String> {
        let url = format!("postgres://tokend@{host}:{}/postgres?{parameters}", self.port);
        let output = Command::new(env!("CARGO_BIN_EXE_tokend"))
            .args(["migrate", "--plan"])
            .env_clear()
            .env("DATABASE_URL", url)
            .envs(public.map(|file| ("SSL_CERT_FILE", file)))
            .output()
            .unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn log(&self) -> String {
        let mut text = String::new();
        let log = std::fs::File::open(self.directory.path().join("log"));
        let _ = log.map(|mut log| log.read_to_string(&mut text));
        text
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Connects as a replica does.
async fn connect(options: PgConnectOptions) -> Result<Connection, StoreError> {
    let store = tokend::store::Store::new(options, 1);
    store.open();
    store.connector().open().await
}

#[tokio::test]
async fn postgres_is_reached_over_tls_and_its_certificate_is_checked_in_full() {
    let (authority, other) = (Authority::new(), Authority::new());
    let postgres = Postgres::start(&authority.good(&["localhost"]));
    let (ca, foreign) = (postgres.file("ca", &authority.pem), postgres.file("foreign", &other.pem));
    let full = |ca: &str| format!("sslmode=verify-full&sslrootcert={ca}");
    eventually("Postgres answers", async || {
        assert!(!postgres.log().contains("FATAL:  could not load"), "{}", postgres.log());
        connect(postgres.url("localhost", "sslmode=disable")).await.ok()
    })
    .await;

    assert!(connect(postgres.url("localhost", &full(&ca))).await.is_ok());
    assert!(connect(postgres.url("localhost", "sslmode=require")).await.is_ok());
    // Another authority, and a name that is not in the certificate.
    assert!(connect(postgres.url("localhost", &full(&foreign))).await.is_err());
    assert!(connect(postgres.url("127.0.0.1", &full(&ca))).await.is_err());
}

#[tokio::test]
async fn postgres_is_verified_against_the_named_ca() {
    let (authority, other) = (Authority::new(), Authority::new());
    let postgres = Postgres::start(&authority.good(&["localhost"]));
    let (ca, foreign) = (postgres.file("ca", &authority.pem), postgres.file("foreign", &other.pem));
    eventually("Postgres answers", async || connect(postgres.url("localhost", "sslmode=disable")).await.ok())
        .await;
    let ask = |host: &str, parameters: &str| postgres.asked_by_tokend(host, parameters);

    // Verified as with verify-ca, as in libpq; the name is not checked.
    assert_eq!(ask("localhost", &format!("sslmode=require&sslrootcert={ca}")), Ok(()));
    assert_eq!(ask("127.0.0.1", &format!("sslmode=require&sslrootcert={ca}")), Ok(()));
    assert_eq!(ask("localhost", &format!("sslmode=verify-full&sslrootcert={ca}")), Ok(()));
    assert_eq!(ask("localhost", "sslmode=require"), Ok(()));
    for parameters in [
        format!("sslmode=require&sslrootcert={foreign}"),
        format!("sslmode=verify-ca&sslrootcert={foreign}"),
        "sslmode=verify-full".to_owned(),
        // It is not signed by an authority that this machine trusts.
        "sslrootcert=system".to_owned(),
        "sslmode=verify-full&sslrootcert=system".to_owned(),
    ] {
        let printed = ask("localhost", &parameters).unwrap_err();
        assert!(printed.contains("invalid peer certificate"), "{parameters}: {printed}");
    }
    for (parameters, reason) in [
        (format!("sslrootcert={ca}"), "sslrootcert has no effect with sslmode=prefer"),
        ("sslmode=require&sslrootcert=system".to_owned(), "sslrootcert=system needs sslmode=verify-full"),
        ("sslmode=verify-full&sslrootcert=/nowhere".to_owned(), "the file of sslrootcert cannot be read"),
    ] {
        let printed = ask("localhost", &parameters).unwrap_err();
        assert!(printed.contains(reason), "{parameters}: {printed}");
    }
}

#[tokio::test]
async fn a_public_ca_is_not_accepted_when_another_ca_is_named() {
    let (public, own) = (Authority::new(), Authority::new());
    let postgres = Postgres::start(&public.good(&["localhost"]));
    let (public, own) = (postgres.file("public", &public.pem), postgres.file("own", &own.pem));
    eventually("Postgres answers", async || connect(postgres.url("localhost", "sslmode=disable")).await.ok())
        .await;
    let ask = |host: &str, parameters: &str| postgres.asked_where(Some(&public), host, parameters);

    for mode in ["require", "verify-ca", "verify-full"] {
        let printed = ask("localhost", &format!("sslmode={mode}&sslrootcert={own}")).unwrap_err();
        assert!(printed.contains("invalid peer certificate"), "{mode}: {printed}");
    }
    for parameters in ["sslrootcert=system", "sslmode=verify-full&sslrootcert=system", "sslmode=verify-full"]
    {
        assert_eq!(ask("localhost", parameters), Ok(()), "{parameters}");
        // It certifies other hosts, too.
        let printed = ask("127.0.0.1", parameters).unwrap_err();
        assert!(printed.contains("invalid peer certificate"), "{parameters}: {printed}");
    }
    let printed = postgres.asked_where(Some("/nowhere"), "localhost", "sslrootcert=system").unwrap_err();
    assert!(printed.contains("the file of SSL_CERT_FILE cannot be read"), "{printed}");
}
