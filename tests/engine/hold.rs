//! Reads that are held in Postgres, in the middle of their execution, when their snapshot is taken, for as long as a
//! test likes.

use sqlx::postgres::PgConnection;

use super::setup::run;
use crate::support::database::Database;
use crate::support::eventually;

/// Lets the loader's statement, and no other, wait for whoever holds the advisory lock.
const HOOK: &str = r"
    ALTER VIEW server_epoch RENAME TO real_epoch;
    CREATE FUNCTION hold() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        IF current_query() LIKE '%LEFT JOIN tokens t ON t.id = ANY(%' THEN
            PERFORM pg_advisory_xact_lock_shared(7);
        END IF;
        RETURN '';
    END $$;
    CREATE VIEW server_epoch AS SELECT epoch || hold() AS epoch FROM real_epoch";

/// Lets reads of this database be held; to be called before it is served.
pub(crate) async fn make_holdable(database: &Database) {
    run(&mut database.connect().await, HOOK).await;
}

/// Holds the reads that begin from now on.
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

    /// Lets them go on.
    pub(crate) async fn end(mut self) {
        run(&mut self.0, "SELECT pg_advisory_unlock(7)").await;
    }
}
