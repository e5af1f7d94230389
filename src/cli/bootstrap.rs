//! `tokend bootstrap`: creates the first root token of a shared database, or a new one when no
//! root token is active, and prints its secret alone.

use clap::Args;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::database::Database;
use super::secret_output::{OutputFlag, SecretOutput};
use super::{CommandError, database, single_threaded};
use crate::config::{BootstrapFlags, Environment};
use crate::secret::{DurableCost, Keyring};
use crate::store::Store;
use crate::tokens::bootstrap::{Bootstrapped, bootstrap};
use crate::{store, telemetry};

/// Flags of `tokend bootstrap`.
#[derive(Args)]
pub(super) struct Flags {
    #[command(flatten)]
    settings: Box<BootstrapFlags>,
    #[command(flatten)]
    output: OutputFlag,
}

pub(super) fn run(flags: Flags, environment: &Environment) -> Result<(), CommandError> {
    let settings = flags.settings.resolve(environment)?;
    let output = flags.output.open()?;
    telemetry::init(settings.log.format, settings.log.filter.as_str(), None)?;
    let database = database::reach(settings.database)?;
    single_threaded()?.block_on(make_root(&database, &settings.keyring, settings.cost, output))
}

async fn make_root(
    database: &Database,
    keyring: &Keyring,
    cost: DurableCost,
    mut output: SecretOutput,
) -> Result<(), CommandError> {
    store::migrate(&database.settings, &database.prefix).await?;
    let store = Store::new(database.settings.clone(), 1);
    store.open();
    // Written before the row commits: a root token whose secret nobody has would lock everybody out.
    let made = bootstrap(&store, keyring, &database.prefix, cost, |secret| {
        let line = Zeroizing::new(format!("{}\n", secret.expose_secret()));
        output.write(line.as_bytes())
    });
    let made = made.await;
    store.close().await;
    match made.map_err(CommandError::Bootstrap)? {
        Bootstrapped::Created(_) => Ok(()),
        Bootstrapped::Exists => Err(CommandError::RootExists),
    }
}
