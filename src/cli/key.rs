//! `tokend key status`: counts the stored fast verifiers by key. Shows an operator when an old key
//! can be removed from the keyring: when no token depends on it any more.

use clap::Subcommand;
use serde::{Serialize, Serializer};

use super::database::Database;
use super::output::{print, print_json, table};
use super::{CommandError, database, single_threaded};
use crate::config::{Environment, KeyStatusFlags};
use crate::secret::{KeyId, Keyring};
use crate::store::Store;
use crate::{store, telemetry};

/// `tokend key …`
#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Count the tokens whose fast verifier was made with each key
    ///
    /// Position 1 is the primary key. A key that no token uses may be removed from the keyring. Tokens of a
    /// removed key stay valid, but their next Verify costs an Argon2id computation.
    Status {
        #[command(flatten)]
        flags: KeyStatusFlags,
        /// Print one JSON object on each line: keyId, position (absent: not in the keyring), tokens
        #[arg(long)]
        json: bool,
    },
}

/// A key in the keyring or in the database, and its tokens.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyUse {
    key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    #[serde(serialize_with = "as_text")]
    tokens: i64,
}

/// Writes a 64-bit number as a string, as protobuf's JSON does: readers that use floats would round it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_text<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

pub(super) fn run(command: KeyCommand, environment: &Environment) -> Result<(), CommandError> {
    let KeyCommand::Status { flags, json } = command;
    let settings = flags.resolve(environment)?;
    telemetry::init(settings.log.format, settings.log.filter.as_str(), None)?;
    let database = database::reach(settings.database)?;
    let uses = single_threaded()?.block_on(count(&database, &settings.keyring))?;
    if json {
        return print_json(&uses);
    }
    let rows: Vec<_> = uses.iter().map(KeyUse::row).collect();
    print(&table(&["KEY", "POSITION", "TOKENS"], rows))
}

async fn count(database: &Database, keyring: &Keyring) -> Result<Vec<KeyUse>, CommandError> {
    store::check(&database.settings, &database.prefix).await?;
    let store = Store::new(database.settings.clone(), 1);
    store.open();
    let counted = store.count_tokens_by_key().await;
    store.close().await;
    Ok(uses(keyring, &counted?))
}

/// Returns the keyring's keys in order, unused ones too, then other keys that the database knows.
fn uses(keyring: &Keyring, counted: &[(KeyId, i64)]) -> Vec<KeyUse> {
    let in_ring = keyring.key_ids().zip(1..).map(|(key_id, position)| {
        let found = counted.iter().find(|(other, _)| *other == key_id);
        KeyUse {
            key_id: key_id.to_string(),
            position: Some(position),
            tokens: found.map_or(0, |(_, tokens)| *tokens),
        }
    });
    let lost = counted
        .iter()
        .filter(|(key_id, _)| !keyring.contains(*key_id))
        .map(|(key_id, tokens)| KeyUse { key_id: key_id.to_string(), position: None, tokens: *tokens });
    in_ring.chain(lost).collect()
}

impl KeyUse {
    fn row(&self) -> Vec<String> {
        let position = self.position.map(|position| position.to_string());
        vec![
            self.key_id.clone(),
            position.unwrap_or_else(|| "not in ring".to_owned()),
            self.tokens.to_string(),
        ]
    }
}
