//! Column values as Postgres stores them, including ones that tokend does not write: an older or newer
//! build, or a manual change, can put anything into a row. Reading one never panics and never fails
//! other rows. Used by every query that reads a time, and by those that read many rows.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::time::Instant;
use uuid::Uuid;

use super::StoreError;
use crate::metrics::unreadable_row;
use crate::secret::TokenId;

/// 2000-01-01, the epoch of Postgres times, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The first valid moment.
pub(super) const FIRST_MOMENT: OffsetDateTime = datetime!(0001-01-01 00:00 UTC);

/// The last valid second.
pub(super) const LAST_MOMENT: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

/// How often one column of one row is logged, and how many of them are remembered for that.
const NAMED_AGAIN: Duration = Duration::from_mins(10);
const MAX_NAMED: usize = 1024;

/// A `timestamptz`, including `infinity` and years that no other type can hold. The driver's own
/// conversion panics there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(i64);

impl Time {
    /// Returns the moment, if it is within the years 1 to 9999.
    pub(super) fn moment(self) -> Option<OffsetDateTime> {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(self.nanos()).ok()?;
        (1..=9999).contains(&moment.year()).then_some(moment)
    }

    /// Returns the nanoseconds since 1970, for any value.
    pub(super) fn nanos(self) -> i128 {
        (i128::from(self.0) + i128::from(POSTGRES_EPOCH)) * 1_000
    }

    /// Returns the microseconds since 2000, which order all values.
    pub(super) fn raw(self) -> i64 {
        self.0
    }

    /// For a value that is not a valid moment, returns whether it is before all moments rather than
    /// after them.
    pub(super) fn is_early(self) -> bool {
        self.0 < 0
    }

    /// Returns whether it is `infinity`.
    pub(super) fn is_infinite(self) -> bool {
        self.0 == i64::MAX
    }

    /// Returns the value as the time of the database's clock.
    ///
    /// # Errors
    /// [`StoreError::Clock`].
    pub(super) fn clock(self) -> Result<OffsetDateTime, StoreError> {
        self.moment().ok_or(StoreError::Clock)
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Time {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        <i64 as Decode<Postgres>>::decode(value).map(Self)
    }
}

/// A value that may be invalid for its type; the rest of its row can still be read.
#[derive(Debug, Clone)]
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<T> Lenient<T> {
    /// Returns the value.
    ///
    /// # Errors
    /// The column's name.
    pub(super) fn read(self, column: &'static str) -> Result<T, &'static str> {
        self.0.ok_or(column)
    }
}

impl Lenient<Time> {
    /// Returns the moment.
    ///
    /// # Errors
    /// The column's name.
    pub(super) fn moment(self, column: &'static str) -> Result<OffsetDateTime, &'static str> {
        self.0.and_then(Time::moment).ok_or(column)
    }
}

impl Lenient<Option<Time>> {
    /// Returns the moment, if there is one.
    ///
    /// # Errors
    /// The column's name.
    pub(super) fn optional_moment(
        self,
        column: &'static str,
    ) -> Result<Option<OffsetDateTime>, &'static str> {
        self.read(column)?.map(|time| time.moment().ok_or(column)).transpose()
    }
}

impl<T: Type<Postgres>> Type<Postgres> for Lenient<T> {
    fn type_info() -> PgTypeInfo {
        T::type_info()
    }

    // Of any type: what cannot be read as `T` is invalid, and no more.
    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

impl<'r, T: Decode<'r, Postgres>> Decode<'r, Postgres> for Lenient<T> {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(T::decode(value).ok()))
    }
}

/// Counts a row that cannot be read, logs its name, and returns the error for it. The content of the
/// column is never revealed.
pub(super) fn unreadable(table: &'static str, id: Option<impl ToString>, column: &'static str) -> StoreError {
    unreadable_row(table);
    let id = id.map_or_else(String::new, |id| id.to_string());
    if is_to_be_named(table, &id, column) {
        tracing::error!(
            table,
            id,
            column,
            "a row cannot be read; its token is refused and left out of \
             lists"
        );
    }
    StoreError::Corrupt { table, column }
}

/// Counts and logs a token's row that cannot be read, and returns the error for it.
pub(super) fn unreadable_token(id: Uuid, column: &'static str) -> StoreError {
    unreadable("tokens", Some(TokenId::from_bytes(id.into_bytes())), column)
}

fn is_to_be_named(table: &'static str, id: &str, column: &'static str) -> bool {
    type Named = HashMap<(&'static str, String, &'static str), Instant>;
    static NAMED: LazyLock<Mutex<Named>> = LazyLock::new(Mutex::default);
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    named.retain(|_, at| now.duration_since(*at) < NAMED_AGAIN);
    if named.len() >= MAX_NAMED {
        return false;
    }
    let key = (table, id.to_owned(), column);
    let is_new = !named.contains_key(&key);
    if is_new {
        named.insert(key, now);
    }
    is_new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_postgres_timestamp_is_a_time_or_an_error_and_never_a_panic() {
        assert_eq!(Time(0).moment(), Some(datetime!(2000-01-01 00:00 UTC)));
        assert_eq!(Time(-POSTGRES_EPOCH).moment(), Some(datetime!(1970-01-01 00:00 UTC)));
        let last = (datetime!(9999-12-31 23:59:59.999_999 UTC) - datetime!(2000-01-01 00:00 UTC))
            .whole_microseconds();
        let last = i64::try_from(last).unwrap();
        assert_eq!(Time(last).moment(), Some(datetime!(9999-12-31 23:59:59.999_999 UTC)));
        let first = (FIRST_MOMENT - datetime!(2000-01-01 00:00 UTC)).whole_microseconds();
        let first = i64::try_from(first).unwrap();
        assert_eq!(Time(first).moment(), Some(FIRST_MOMENT));
        for none in [i64::MIN, i64::MIN + 1, first - 1, last + 1, i64::MAX - 1, i64::MAX] {
            assert_eq!(Time(none).moment(), None, "{none}");
        }
    }

    #[test]
    fn no_query_converts_a_time_with_the_driver() {
        let queries = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
        let mut times = 0;
        for file in std::fs::read_dir(queries).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let query: serde_json::Value = serde_json::from_str(&text).unwrap();
            for column in query["describe"]["columns"].as_array().unwrap() {
                let name = column["name"].as_str().unwrap();
                let is_time = column["type_info"].as_str().is_some_and(|kind| kind.starts_with("Timestamp"));
                times += usize::from(is_time);
                let reads = format!("{name}: write AS \"{name}: Time\", with the Time of this file");
                assert!(!is_time || name.contains(": "), "{reads}");
            }
        }
        assert!(times > 20, "the queries are somewhere else: {times}");
    }

    #[test]
    fn an_unreadable_row_is_logged_once() {
        assert!(is_to_be_named("tokens", "a", "scopes"));
        assert!(!is_to_be_named("tokens", "a", "scopes"));
        assert!(is_to_be_named("tokens", "a", "labels") && is_to_be_named("tokens", "b", "scopes"));
    }
}
