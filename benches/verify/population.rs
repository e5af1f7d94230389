//! The tokens of a run: the requested ones, with real MACs, and among them others that are never
//! requested. Written by COPY, with the triggers off and the indexes created afterwards.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokend::clock;
use tokend::secret::{DurableCost, DurableHash, Keyring, Mac, Prefix, Secret, TokenId};

use super::database::{Postgres, execute};

/// The organization of all these tokens.
pub(crate) const ORGANIZATION: &str = "acme";
const USERS: u64 = 1_000;

/// The earliest creation time of the tokens, and their time span, in milliseconds.
const EPOCH_MILLIS: u64 = 1_750_000_000_000;
const SPAN_MILLIS: u64 = 365 * 86_400_000;

const COLUMNS: &str = "id, organization_id, user_id, name, scopes, labels, create_time, created_by, \
     expire_time, durable_hash, mac, mac_key_id";
const COPY_CHUNK: usize = 1 << 20;

/// A durable hash as text.
const PHC: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A plan with one limit for each token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RatePlan {
    pub(crate) name: &'static str,
    /// Per second.
    pub(crate) requests: u32,
    pub(crate) burst: u32,
}

impl RatePlan {
    /// Inserts the plan, unless it exists.
    pub(crate) async fn insert(self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let Self { name, requests, burst } = self;
        let insert = format!(
            "WITH made AS (
                 INSERT INTO plans (organization_id, name, updated_by, update_time)
                 VALUES ('{ORGANIZATION}', '{name}', 'bench', now()) ON CONFLICT DO NOTHING RETURNING plan_id
             )
             INSERT INTO plan_limits (plan_id, name, position, per, kind, requests, period, burst, admits_in_outage)
             SELECT plan_id, 'requests', 0, 'token', 'rate', {requests}, 1, {burst}, false FROM made"
        );
        execute(connection, insert).await
    }
}

/// The secrets to verify, and the caller.
#[derive(Debug)]
pub(crate) struct Population {
    pub(crate) key: String,
    pub(crate) caller: String,
    pub(crate) secrets: Vec<String>,
    /// Well-formed secrets of existing ids, with other random bits.
    pub(crate) wrong: Vec<String>,
    /// Well-formed secrets of ids that do not exist.
    pub(crate) unknown: Vec<String>,
    /// The durable hashes of the first token, shared by all others, and of the caller, in hexadecimal digits.
    pub(crate) durable_hash: String,
    caller_hash: String,
}

impl Population {
    /// Generates the secrets, or reads those of existing data.
    pub(crate) fn prepare(postgres: &Postgres, verified: u32) -> anyhow::Result<Self> {
        let file = postgres.directory().join("bench-secrets");
        let kept = fs::read_to_string(&file).unwrap_or_default();
        let mut kept = kept.lines().map(str::to_owned);
        let randomness = &mut clock::randomness();
        let (key, caller, secrets) = if let (Some(key), Some(caller)) = (kept.next(), kept.next()) {
            (key, caller, kept.collect::<Vec<_>>())
        } else {
            let key = Keyring::generate_entry(randomness)?.expose_secret().to_owned();
            let caller = render(TokenId::generate(EPOCH_MILLIS, randomness)?)?;
            let made = invent(verified)?;
            fs::write(&file, format!("{key}\n{caller}\n{}\n", made.join("\n")))?;
            (key, caller, made)
        };
        let first = secrets.first().context("there is nothing to ask for")?;
        let first = Secret::parse(first, &Prefix::default())?;
        let wrong = secrets.iter().map(|secret| render(Secret::parse(secret, &Prefix::default())?.id()));
        let wrong = wrong.collect::<anyhow::Result<_>>()?;
        let unknown =
            secrets.iter().map(|_| render(TokenId::generate(EPOCH_MILLIS / 2, &mut clock::randomness())?));
        let unknown = unknown.collect::<anyhow::Result<_>>()?;
        let mut hash = |secret| anyhow::Ok(DurableHash::compute(secret, DurableCost::default(), randomness)?);
        let durable_hash = hex::encode(hash(&first)?.as_bytes());
        let caller_hash = hex::encode(hash(&Secret::parse(&caller, &Prefix::default())?)?.as_bytes());
        Ok(Self { key, caller, secrets, wrong, unknown, durable_hash, caller_hash })
    }

    /// Fills a database of this build's with the requested tokens and `others` more, unless it is filled.
    pub(crate) async fn fill(
        &self,
        postgres: &Postgres,
        database: &str,
        build: &Path,
        others: u32,
    ) -> anyhow::Result<()> {
        self.fill_with(postgres, database, build, others, None).await
    }

    /// Does the same, and all requested tokens have this plan, which only a current build has.
    pub(crate) async fn fill_with(
        &self,
        postgres: &Postgres,
        database: &str,
        build: &Path,
        others: u32,
        plan: Option<RatePlan>,
    ) -> anyhow::Result<()> {
        if !postgres.make(database, build).await? && is_filled(postgres, database).await? {
            return Ok(());
        }
        postgres.drop_database(database).await?;
        postgres.make(database, build).await?;
        let mut connection = postgres.options(database).connect().await?;
        let indexes: Vec<(String, String)> = sqlx::query_as(
            "SELECT indexname::text, indexdef FROM pg_indexes WHERE tablename = 'tokens' AND indexname <> 'tokens_pkey'",
        )
        .fetch_all(&mut connection)
        .await?;
        for (name, _) in &indexes {
            execute(&mut connection, format!("DROP INDEX {name}")).await?;
        }
        // No replica exists yet that needs these changes.
        execute(&mut connection, "ALTER TABLE tokens DISABLE TRIGGER tokens_insert_trigger".to_owned())
            .await?;
        let as_text: bool = sqlx::query_scalar(
            "SELECT data_type = 'text' FROM information_schema.columns
             WHERE table_name = 'tokens' AND column_name = 'durable_hash'",
        )
        .fetch_one(&mut connection)
        .await?;
        if let Some(plan) = plan {
            plan.insert(&mut connection).await?;
        }
        self.copy(&mut connection, others, as_text, plan).await?;
        execute(&mut connection, "ALTER TABLE tokens ENABLE TRIGGER tokens_insert_trigger".to_owned())
            .await?;
        execute(&mut connection, "SET maintenance_work_mem = '1GB'".to_owned()).await?;
        for (_, definition) in indexes {
            execute(&mut connection, definition).await?;
        }
        for last in ["VACUUM (FREEZE, ANALYZE) tokens", "CREATE TABLE bench_filled ()", "CHECKPOINT"] {
            execute(&mut connection, last.to_owned()).await?;
        }
        Ok(connection.close().await?)
    }

    /// Writes the tokens. `as_text`: an earlier schema keeps durable hashes as text; Verify reads them only
    /// where a MAC does not match.
    async fn copy(
        &self,
        connection: &mut PgConnection,
        others: u32,
        as_text: bool,
        plan: Option<RatePlan>,
    ) -> anyhow::Result<()> {
        let hash = |hex: &str| if as_text { PHC.to_owned() } else { format!(r"\\x{hex}") };
        let (caller_hash, durable_hash) = (hash(&self.caller_hash), hash(&self.durable_hash));
        let (verified, others) = (self.secrets.len() as u64, u64::from(others));
        let keyring = Keyring::parse(&self.key)?;
        let text = String::with_capacity(COPY_CHUNK + 4096);
        // A caller's own token is never limited.
        let mut rows = Rows { text, keyring, hash: &caller_hash, plan: plan.map(|_| r"\N") };
        let columns = if plan.is_some() { format!("{COLUMNS}, plan") } else { COLUMNS.to_owned() };
        let mut copy = connection.copy_in_raw(&format!("COPY tokens ({columns}) FROM STDIN")).await?;
        rows.known(&self.caller, "{tokend:verify,tokend:write}")?;
        rows.hash = &durable_hash;
        rows.plan = plan.map(|plan| plan.name);
        let mut secrets = self.secrets.iter();
        for number in 0..verified + others {
            // Spread evenly, in proportion to the requested ones so far.
            if (number + 1) * verified / (verified + others) > number * verified / (verified + others) {
                rows.known(secrets.next().context("too few secrets")?, SCOPES)?;
            } else {
                rows.other(number, EPOCH_MILLIS + number * SPAN_MILLIS / (verified + others))?;
            }
            if rows.text.len() > COPY_CHUNK {
                copy.send(rows.text.as_bytes()).await?;
                rows.text.clear();
            }
        }
        copy.send(rows.text.as_bytes()).await?;
        copy.finish().await?;
        Ok(())
    }
}

/// Four scopes and two labels, as in the memory goal.
const SCOPES: &str = "{reports:read,repo:*,user:read,deploy:staging}";
const LABELS: &str = r#"{"team": "billing", "environment": "production"}"#;

async fn is_filled(postgres: &Postgres, database: &str) -> anyhow::Result<bool> {
    let mut connection = postgres.options(database).connect().await?;
    let filled =
        sqlx::query_scalar(AssertSqlSafe("SELECT to_regclass('bench_filled') IS NOT NULL".to_owned()))
            .fetch_one(&mut connection)
            .await?;
    connection.close().await?;
    Ok(filled)
}

/// Generates secrets of tokens whose creation times are spread over the time span.
fn invent(count: u32) -> anyhow::Result<Vec<String>> {
    let step = SPAN_MILLIS / u64::from(count);
    let moments = (0..u64::from(count)).map(|number| EPOCH_MILLIS + number * step);
    moments.map(|millis| render(TokenId::generate(millis, &mut clock::randomness())?)).collect()
}

fn render(id: TokenId) -> anyhow::Result<String> {
    let secret = Secret::generate(id, &mut clock::randomness())?;
    Ok(secret.render(&Prefix::default()).expose_secret().to_owned())
}

/// Rows in COPY's text format.
struct Rows<'a> {
    text: String,
    keyring: Keyring,
    hash: &'a str,
    /// The last column, if the table has one for plans.
    plan: Option<&'a str>,
}

impl Rows<'_> {
    fn known(&mut self, secret: &str, scopes: &str) -> anyhow::Result<()> {
        let secret = Secret::parse(secret, &Prefix::default())?;
        let mac = self.keyring.mac(&secret);
        self.row(secret.id().to_bytes(), u64::from(secret.id().to_bytes()[15]), scopes, &mac)
    }

    fn other(&mut self, number: u64, millis: u64) -> anyhow::Result<()> {
        let scattered = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let id = u128::from(millis) << 80 | 7 << 76 | 2 << 62 | scattered >> 66;
        let mut tag = [0; 32];
        tag[..16].copy_from_slice(&scattered.to_be_bytes());
        self.row(id.to_be_bytes(), number, SCOPES, &Mac { key_id: self.keyring.primary(), tag })
    }

    fn row(&mut self, id: [u8; 16], number: u64, scopes: &str, mac: &Mac) -> anyhow::Result<()> {
        let user = number % USERS;
        let (id, tag, key_id) = (hex::encode(id), hex::encode(mac.tag), hex::encode(mac.key_id.to_bytes()));
        writeln!(
            self.text,
            "{id}\t{ORGANIZATION}\tuser-{user:06}\tcontinuous integration\t{scopes}\t{LABELS}\t\
             2025-06-15T12:00:00.123456Z\tbootstrap\t2035-06-15T12:00:00.654321Z\t{hash}\t\\\\x{tag}\t\\\\x{key_id}{plan}",
            hash = self.hash,
            plan = self.plan.map_or_else(String::new, |plan| format!("\t{plan}")),
        )?;
        Ok(())
    }
}
