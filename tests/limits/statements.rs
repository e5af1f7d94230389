//! What the tests of the statements share: a database with plans, a connection as the lessor has, and numbers that are
//! the same in each run.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use tokend::store::{AllowanceKey, Connection, Epoch, Store};
use uuid::Uuid;

use crate::support::database::Database;

/// The deadline of a statement.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A database with a server's mark, and the epoch that it makes.
pub(super) struct Leasing {
    pub(super) database: Database,
    pub(super) epoch: Epoch,
    store: Store,
}

impl Leasing {
    pub(super) async fn new() -> Self {
        let database = Database::migrated().await;
        database.execute("INSERT INTO server_mark (mark) VALUES (gen_random_uuid())").await;
        let mut connection = database.connect().await;
        let row = sqlx::query("SELECT epoch FROM server_epoch").fetch_one(&mut connection).await.unwrap();
        let store = Store::new(database.options(), 1);
        store.open();
        Self { database, epoch: Epoch::parse(row.get(0)), store }
    }

    /// Opens a connection for leases.
    pub(super) async fn connect(&self) -> Connection {
        self.store.connector().open_for_records().await.unwrap()
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes a plan with one limit; `limit` is SQL of its columns from `kind` on.
    pub(super) async fn plan(&self, number: u64, revision: i64, limit: &str) -> Uuid {
        let plan_id = plan_id(number);
        self.database
            .execute(format!(
                "WITH plan AS (INSERT INTO plans (plan_id, organization_id, name, revision, updated_by, update_time)
                     VALUES ('{plan_id}', 'acme', 'plan-{number}', {revision}, 'token:x', now()))
                 INSERT INTO plan_limits (plan_id, name, position, per, kind, requests, period, burst, admits_in_outage,
                     initial, refill_amount, refill_period, refill_adds)
                 VALUES ('{plan_id}', 'calls', 0, 'token', {limit})"
            ))
            .await;
        plan_id
    }
}

pub(super) fn plan_id(number: u64) -> Uuid {
    Uuid::from_u64_pair(1, number)
}

pub(super) fn key(plan_id: Uuid, subject: &str) -> AllowanceKey {
    AllowanceKey { plan_id, limit: Arc::from("calls"), subject: Arc::from(subject) }
}

/// Numbers that are the same in each run (`SplitMix64`).
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Returns a number of the range.
    pub(super) fn within(&mut self, range: std::ops::Range<i64>) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + ((mixed ^ (mixed >> 31)) >> 1).cast_signed() % (range.end - range.start)
    }

    /// Returns one of these.
    pub(super) fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.within(0..i64::try_from(from.len()).unwrap())).unwrap()]
    }
}
