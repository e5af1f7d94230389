//! Replicas that reach Postgres through a real PgBouncer in transaction mode, with fewer
//! connections than they request: one follows changes over a direct connection, one polls through
//! the pooler. Skipped where PgBouncer is not installed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};
use tokend::api::proto::{Consistency, GetTokenRequest, ListTokensRequest, Verdict, VerifyRequest};
use tokend::private_postgres::Cluster;
use tokend::server::ServeError;
use tokend::store::{ConnectSettings, MigrateError, PoolerMode};

use super::fault_test::{FaultTest, resumption};
use super::fleet::{Process, report, url};
use super::setup::{becomes, cached, made, settles_in};
use crate::support::client::{question, renaming, revoked, rotated, rotation};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::program::{Running, TestDir, find, free_address, shown};
use crate::support::replica::Installation;
use crate::support::server::Server;

const GUIDE: &str = include_str!("../../docs/operations.md");

/// The pooler's connections to Postgres: a fraction of the connections of two replicas to the pooler.
const SESSIONS: u32 = 3;

/// A pooler as configured in the guide.
struct Pooler {
    address: SocketAddr,
    running: Option<Running>,
}

impl Pooler {
    async fn start(program: &Path, server: &Server) -> Self {
        let mut pooler = Self { address: free_address(), running: None };
        pooler.go_on(program, server).await;
        pooler
    }

    /// Starts it, or restarts it at the same address.
    async fn go_on(&mut self, program: &Path, server: &Server) {
        let test_dir = TestDir::new();
        let users = test_dir.write("userlist.txt", &format!("\"{}\" \"\"\n", Cluster::ROLE));
        let pool = format!("default_pool_size = {SESSIONS}\nunix_socket_dir = {}", test_dir.path().display());
        let config = shown(GUIDE, "pgbouncer.ini")
            .replace("host=db.example", &format!("host={}", server.socket_dir().display()))
            .replace("listen_port = 6432", &format!("listen_port = {}", self.address.port()))
            .replace("auth_type = scram-sha-256", "auth_type = trust")
            .replace("/etc/pgbouncer/userlist.txt", &users)
            .replace("default_pool_size = 20", &pool);
        let config = test_dir.write("pgbouncer.ini", &config);
        let mut arguments = vec![config.as_str()];
        // PgBouncer refuses to run as root.
        if rustix::process::geteuid().is_root() {
            arguments.extend(["-u", "postgres"]);
        }
        let mut running = test_dir.start(program, &arguments);
        eventually("the pooler listens", async || {
            running.check();
            tokio::net::TcpStream::connect(self.address).await.ok()
        })
        .await;
        self.running = Some(running);
    }

    /// Kills it at once, with all of its connections.
    fn kill(&mut self) {
        self.running = None;
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.address.port())
            .username(Cluster::ROLE)
            .database("tokend")
            .ssl_mode(PgSslMode::Disable)
            .extra_float_digits(None)
    }

    fn url(&self) -> String {
        format!("postgres://{}@{}/tokend?sslmode=disable", Cluster::ROLE, self.address)
    }
}

/// Makes the calls of ordinary callers on a replica.
async fn everything_works(process: &Process) {
    let mut root = process.root();
    let token = cached(&mut root).await;
    let get = GetTokenRequest { token_id: token.id.clone() };
    assert_eq!(root.get_token(get).await.unwrap().into_inner().token.unwrap().id, token.id);
    root.update_token(renaming(&token.id)).await.unwrap();
    let listed = root.list_tokens(ListTokensRequest::default()).await.unwrap().into_inner();
    assert!(listed.tokens.iter().any(|one| one.id == token.id));
    let successor = rotated(&mut root, rotation(&token.id)).await;
    assert!(successor.secret != token.secret);
    revoked(&mut root, &token.id, "").await;
    let consistency = Consistency::Full.into();
    let asked = VerifyRequest { consistency, ..question(&successor.secret, &[]) };
    assert_eq!(root.verify(asked).await.unwrap().into_inner().verdict(), Verdict::Revoked);
}

/// Checks that the next user of the pooled sessions finds no state in them.
async fn nothing_is_left_behind(pooler: &Pooler) {
    let mut outsider = pooler.options().connect().await.unwrap();
    for _ in 0..30 {
        let asked = "SELECT current_setting('statement_timeout'),
            (SELECT count(*) FROM pg_prepared_statements WHERE name <> '')::text";
        let row = outsider.fetch_one(asked).await.unwrap();
        assert_eq!((row.get::<&str, _>(0), row.get::<&str, _>(1)), ("0", "0"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_staleness_bound_holds_behind_a_pooler_in_transaction_mode() {
    let Some(program) = find("pgbouncer") else { return };
    let server = Server::start();
    let installation = Installation::on(Database::migrated_on(server.socket_dir()).await).await;
    let mut pooler = Pooler::start(&program, &server).await;
    let mode = ["--database-pooling", "transaction"];
    let without = [&mode[..], &["--no-migrate"]].concat();
    let direct = url(&installation.database);
    let beside = [&mode[..], &["--direct-database-url", &direct]].concat();
    let fleet = [
        Process::start(&installation, &pooler.url(), &without).await,
        Process::start(&installation, &pooler.url(), &beside).await,
    ];

    for process in &fleet {
        everything_works(process).await;
    }
    // A change by an operator sends no NOTIFY: both replicas must find it by themselves.
    let mut roots = [fleet[0].root(), fleet[1].root()];
    let changed = made(&mut roots[0]).await;
    for (process, root) in fleet.iter().zip(&mut roots) {
        settles_in(root, &installation.database, &process.root_token(), &changed).await;
    }
    installation.database.execute(super::setup::revoking(&changed)).await;
    for root in &mut roots {
        becomes(root, &changed, Verdict::Revoked).await;
    }

    let kept = made(&mut roots[0]).await;
    let fault_test = FaultTest::start(&fleet, 60).await;
    eventually("the load is under way", async || {
        (fault_test.revoked() > 10 && fault_test.created() > 10).then_some(())
    })
    .await;
    nothing_is_left_behind(&pooler).await;
    pooler.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = fault_test.revoked();
    pooler.go_on(&program, &server).await;
    let resumption = resumption(&fleet, &kept).await;
    report(&format!("every replica answers {resumption:.0?} after the pooler's end"));
    eventually("revoking goes on", async || (fault_test.revoked() > before + 5).then_some(())).await;
    fault_test.raise(&fleet).await;
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_noticed() {
    let Some(program) = find("pgbouncer") else { return };
    let server = Server::start();
    let installation = Installation::on(Database::migrated_on(server.socket_dir()).await).await;
    let pooler = Pooler::start(&program, &server).await;
    let refused = async |pooling, migrate| {
        let mut config = installation.config();
        config.database = ConnectSettings { options: pooler.options(), pooling, password_file: None };
        config.migrate = migrate;
        match installation.launch(config).ended().await {
            Err(ServeError::Database(error)) => error,
            ended => panic!("{ended:?}"),
        }
    };

    for migrate in [true, false] {
        let error = refused(PoolerMode::Session, migrate).await;
        assert!(matches!(error, MigrateError::SharedSessions), "{error:?}");
    }
    let error = refused(PoolerMode::Transaction, true).await;
    assert!(matches!(error, MigrateError::NoSession), "{error:?}");
}
