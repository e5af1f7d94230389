//! `tokend migrate`: brings the database's schema up to date, for a serve with `--no-migrate`.

use super::{CommandError, single_threaded};
use crate::config::MigrateSettings;
use crate::{store, telemetry};

pub(super) fn run(settings: &MigrateSettings) -> Result<(), CommandError> {
    telemetry::init(&settings.log, None)?;
    let database = &settings.database;
    single_threaded()?.block_on(store::migrate(&database.route, &database.prefix))?;
    tracing::info!("the schema is up to date");
    Ok(())
}
