//! Finds the holders of the locks that a migration waits for. Called when a migration does not get its
//! lock.

use std::fmt;

use sqlx::PgConnection;

use super::plan::locks;

/// Up to five holders of locks that a migration needs, longest transaction first.
#[derive(Debug, Default)]
pub struct Holders(Vec<Holder>);

#[derive(Debug)]
struct Holder {
    /// `None`: a prepared transaction, which has no process.
    pid: Option<i32>,
    role: Option<String>,
    program: Option<String>,
    state: Option<String>,
    seconds: Option<i64>,
}

/// Finds the holders of the locks that this migration needs.
pub(super) async fn holders(connection: &mut PgConnection, version: i64) -> Result<Holders, sqlx::Error> {
    let (mut tables, mut modes) = (Vec::new(), Vec::new());
    for lock in locks(version) {
        for mode in lock.mode.conflicts() {
            tables.push(lock.table.to_owned());
            modes.push((*mode).to_owned());
        }
    }
    let holders = sqlx::query_as!(
        Holder,
        r#"SELECT l.pid, min(a.usename::text) AS role, min(a.application_name) AS program, min(a.state) AS state,
               max(extract(epoch FROM clock_timestamp() - a.xact_start))::bigint AS seconds
           FROM unnest($1::text[], $2::text[]) AS needed (table_name, mode)
           JOIN pg_locks l ON l.relation = to_regclass(needed.table_name) AND l.mode = needed.mode AND l.granted
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           LEFT JOIN pg_stat_activity a ON a.pid = l.pid
           WHERE l.pid IS DISTINCT FROM pg_backend_pid()
           GROUP BY l.pid ORDER BY min(a.xact_start) LIMIT 5"#,
        &tables,
        &modes
    );
    Ok(Holders(holders.fetch_all(connection).await?))
}

impl fmt::Display for Holders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("transactions that have ended meanwhile");
        }
        for (index, holder) in self.0.iter().enumerate() {
            formatter.write_str(if index > 0 { ", " } else { "" })?;
            let Some(pid) = holder.pid else {
                formatter.write_str("a prepared transaction (see pg_prepared_xacts)")?;
                continue;
            };
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (role, program, state) = (text(&holder.role), text(&holder.program), text(&holder.state));
            let seconds = holder.seconds.unwrap_or(0);
            write!(
                formatter,
                "process {pid} (role '{role}', program '{program}', {state}, in a transaction for {seconds} s)"
            )?;
        }
        Ok(())
    }
}
