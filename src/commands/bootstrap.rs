//! `tokend bootstrap`: makes the first root token of a shared database, or a new one after every
//! root token was revoked, and prints its secret alone on standard output.

use std::io::{self, Write};

use secrecy::{ExposeSecret, SecretString};

use super::{CommandError, single_threaded};
use crate::actions::bootstrap::{Bootstrapped, bootstrap};
use crate::config::BootstrapSettings;
use crate::store::Store;
use crate::{store, telemetry};

pub(super) fn run(settings: BootstrapSettings) -> Result<(), CommandError> {
    super::token::require_output()?;
    telemetry::init(&settings.log, None)?;
    single_threaded()?.block_on(make_root(settings))
}

async fn make_root(settings: BootstrapSettings) -> Result<(), CommandError> {
    let database = settings.database;
    store::migrate(&database.route, &database.prefix).await?;
    let store = Store::new(database.route, 1);
    store.open();
    // Printed before the row commits: a secret that nobody could read would lock everybody out.
    let made = bootstrap(&store, &settings.keyring, &database.prefix, settings.cost, print).await;
    store.close().await;
    match made.map_err(CommandError::Bootstrap)? {
        Bootstrapped::Created(_) => Ok(()),
        Bootstrapped::Exists => Err(CommandError::RootExists),
    }
}

fn print(secret: &SecretString) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{}", secret.expose_secret())?;
    output.flush()
}
