//! Reads that a test holds in Postgres, in the middle of their execution when their snapshot is
//! taken, for any length of time.

use sqlx::postgres::PgConnection;

use super::setup::run;
use crate::support::database::Database;
use crate::support::eventually;

/// Recognizes the loader's statement.
pub(crate) const READ: &str = "%LEFT JOIN tokens t ON t.id = ANY(%";

/// Makes a statement, and no other, wait for the holder of the advisory lock.
const HOOK: &str = r"
    ALTER VIEW server_epoch RENAME TO real_epoch;
    CREATE FUNCTION hold() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_query() LIKE '{statement}' THEN
            PERFORM pg_advisory_xact_lock_shared(7);
        END IF;
        RETURN '';
    END $$;
    CREATE VIEW server_epoch AS SELECT epoch || hold() AS epoch FROM real_epoch";

/// Allows reads of this database by a statement to be held; must be called before a replica serves it.
pub(crate) async fn make_holdable(database: &Database, statement: &str) {
    run(&mut database.connect().await, &HOOK.replace("{statement}", statement)).await;
}

/// Holds the reads that start from now on.
pub(crate) struct Hold(PgConnection);

impl Hold {
    pub(crate) async fn begin(database: &Database) -> Self {
        let mut holder = database.connect().await;
        run(&mut holder, "SELECT pg_advisory_lock(7)").await;
        Self(holder)
    }

    /// Waits until a read is held.
    pub(crate) async fn a_read_waits(&self, database: &Database) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually("the read waits", async || (database.count(waiting).await > 0).then_some(())).await;
    }

    /// Lets the held reads continue.
    pub(crate) async fn end(mut self) {
        run(&mut self.0, "SELECT pg_advisory_unlock(7)").await;
    }
}
