//! Checks whether tokend can use a server and a schema, before it migrates or serves, to report
//! problems that waiting does not solve. Called by `migrations` alone.

use super::error::MigrateError;
use crate::store::pooling::Session;

/// The source of a role's session setting in `pg_settings`, and what resets it.
const SOURCES: [(&str, &str); 5] = [
    ("user", "ALTER ROLE"),
    ("database", "ALTER DATABASE"),
    ("database user", "ALTER ROLE … IN DATABASE"),
    ("configuration file", "the server's configuration"),
    ("client", "the options of the database URL, or PGOPTIONS"),
];

/// Checks that the server and the role's sessions accept writes.
///
/// # Errors
/// [`MigrateError::Standby`], [`MigrateError::ReadOnly`], and those of an unreachable Postgres.
pub(super) async fn check_writable(connection: &mut Session) -> Result<(), MigrateError> {
    let session = sqlx::query!(
        r#"SELECT pg_is_in_recovery() AS "standby!", setting AS "read_only!", source AS "source!",
               session_user::text AS "role!"
           FROM pg_settings WHERE name = 'default_transaction_read_only'"#
    )
    .fetch_one(connection.single())
    .await?;
    if session.standby {
        return Err(MigrateError::Standby);
    }
    if session.read_only == "on" {
        let known = SOURCES.iter().find(|(source, _)| *source == session.source);
        let set_by = known.map_or(session.source, |(_, by)| (*by).to_owned());
        return Err(MigrateError::ReadOnly { role: session.role, set_by });
    }
    Ok(())
}

/// Checks that tokend's tables, if there are any, are in the schema that this role's search path
/// selects: with a changed path, a second, empty installation would be created, and every token of the
/// first be unknown.
///
/// # Errors
/// [`MigrateError::TablesElsewhere`], and those of an unreachable Postgres.
pub(super) async fn check_schema(connection: &mut Session) -> Result<(), MigrateError> {
    let found = sqlx::query!(
        r#"SELECT n.nspname::text AS "schema!", current_schema()::text AS current
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relname = 'installation' AND c.relkind IN ('r', 'p')
               AND n.nspname IS DISTINCT FROM current_schema()
               AND EXISTS (SELECT FROM pg_class t WHERE t.relnamespace = n.oid AND t.relname = 'tokens')
               AND EXISTS (SELECT FROM pg_class t WHERE t.relnamespace = n.oid AND t.relname = '_sqlx_migrations')
               AND NOT EXISTS (SELECT FROM pg_class t JOIN pg_namespace own ON own.oid = t.relnamespace
                   WHERE own.nspname = current_schema() AND t.relname = '_sqlx_migrations')
           ORDER BY n.nspname LIMIT 1"#
    )
    .fetch_optional(connection.single())
    .await?;
    match found {
        None => Ok(()),
        Some(other) => Err(MigrateError::TablesElsewhere {
            found: other.schema,
            current: other.current.unwrap_or_else(|| "no schema".to_owned()),
        }),
    }
}
