//! `tokend migrate`: migrates the database's schema, for a serve with `--no-migrate`, or prints
//! what that would do.

use super::output::{print, table};
use super::{CommandError, database, single_threaded};
use crate::config::MigrateSettings;
use crate::store::Planned;
use crate::{store, telemetry};

pub(super) fn run(settings: MigrateSettings) -> Result<(), CommandError> {
    telemetry::init(settings.log.format, settings.log.filter.as_str(), None)?;
    let database = database::reach(settings.database)?;
    if settings.plan {
        let planned = single_threaded()?.block_on(store::plan(&database.settings))?;
        let rows: Vec<_> = planned.iter().flat_map(rows).collect();
        let text = table(&["MIGRATION", "TABLE", "LOCK", "HELD"], rows);
        return print(&text);
    }
    single_threaded()?.block_on(store::migrate(&database.settings, &database.prefix))?;
    tracing::info!("the schema is up to date");
    Ok(())
}

/// Returns one row per lock, or one that shows that there is none.
fn rows(planned: &Planned) -> Vec<Vec<String>> {
    let name = format!("{:04} {}", planned.version, planned.description);
    if planned.locks.is_empty() {
        let none = || "-".to_owned();
        return vec![vec![name, none(), none(), none()]];
    }
    let locks = planned.locks.iter();
    locks
        .map(|lock| {
            let [mode, work] = [lock.mode.to_string(), lock.work.to_string()];
            vec![name.clone(), lock.table.to_owned(), mode, work]
        })
        .collect()
}
