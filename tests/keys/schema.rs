//! The schema at the start: applied once by the first replica, checked by the others; a database
//! that this build cannot serve is refused by name.

use tokend::secret::Prefix;
use tokend::server::ServeError;
use tokend::store::{MigrateError, check, migrate, plan};
use tonic_health::ServingStatus;

use crate::support::client::{created, ordinary};
use crate::support::database::Database;
use crate::support::replica::{Installation, SERVICE};

fn other_prefix() -> Prefix {
    Prefix::parse("acme").unwrap()
}

/// Returns a description of the tables, for comparison.
async fn shape(database: &Database) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
         WHERE table_schema = 'public' ORDER BY 1",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap()
}

#[tokio::test]
async fn any_number_of_processes_may_migrate_at_once() {
    let database = Database::empty().await;
    let migrating: Vec<_> = (0..8)
        .map(|_| {
            let route = database.connect_settings();
            in_a_thread(move || async move { migrate(&route, &Prefix::default()).await })
        })
        .collect();

    for one in migrating {
        one.join().unwrap().unwrap();
    }

    check(&database.connect_settings(), &Prefix::default()).await.unwrap();
    assert_eq!(shape(&database).await, shape(&Database::migrated().await).await);
    assert_eq!(database.count("SELECT count(*) FROM installation").await, 1);
}

/// Runs a future in a separate thread and runtime, as in a separate process.
fn in_a_thread<T: Send + 'static, F: Future<Output = T>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    })
}

#[tokio::test]
async fn a_database_that_lacks_migrations_is_pending() {
    let database = Database::empty().await;
    let checked = check(&database.connect_settings(), &Prefix::default()).await;
    assert!(matches!(checked, Err(MigrateError::Pending)), "{checked:?}");

    let database = Database::migrated().await;
    let undo = "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)";
    assert_eq!(database.execute(undo).await, 1);
    let checked = check(&database.connect_settings(), &Prefix::default()).await;
    assert!(matches!(checked, Err(MigrateError::Pending)), "{checked:?}");
}

#[tokio::test]
async fn a_check_changes_nothing() {
    let database = Database::empty().await;

    let checked = check(&database.connect_settings(), &Prefix::default()).await;

    assert!(checked.is_err());
    assert_eq!(shape(&database).await, [""; 0]);
}

#[tokio::test]
async fn a_replica_with_no_migrate_exits_on_an_empty_database() {
    let installation = Installation { database: Database::empty().await, ..Installation::new().await };
    let mut config = installation.config();
    config.migrate = false;

    let ended = installation.launch(config).ended().await;

    assert!(matches!(ended, Err(ServeError::Database(MigrateError::Pending))), "{ended:?}");
    assert_eq!(shape(&installation.database).await, [""; 0]);
}

#[tokio::test]
async fn a_replica_with_no_migrate_serves_a_migrated_database() {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.migrate = false;

    let replica = installation.serve(config).await;

    created(&mut replica.root(), ordinary()).await;
}

#[tokio::test]
async fn a_replica_brings_an_empty_database_up_to_date() {
    let installation = Installation { database: Database::empty().await, ..Installation::new().await };

    let replica = installation.serve(installation.config()).await;

    assert_eq!(replica.health(SERVICE).await, ServingStatus::Serving);
    check(&installation.database.connect_settings(), &Prefix::default()).await.unwrap();
}

#[tokio::test]
async fn a_schema_with_newer_migrations_is_accepted() {
    let installation = Installation::new().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'of a newer build', true, '\\x00', 0)";
    installation.database.execute(newer).await;
    let route = installation.database.connect_settings();

    migrate(&route, &Prefix::default()).await.unwrap();
    check(&route, &Prefix::default()).await.unwrap();
    created(&mut installation.serve(installation.config()).await.root(), ordinary()).await;
}

#[tokio::test]
async fn a_database_from_before_the_first_release_is_refused_and_not_changed() {
    let installation = Installation { database: Database::empty().await, ..Installation::new().await };
    let database = &installation.database;
    // The relevant part of what such a build left: migrations with the same numbers.
    database
        .execute(
            "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
                 installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL,
                 execution_time bigint NOT NULL)",
        )
        .await;
    database
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT version, 'of before', true, sha384('before'), 0 FROM generate_series(1, 26) AS version",
        )
        .await;
    let (before, route) = (shape(database).await, database.connect_settings());

    let refusals = [
        migrate(&route, &Prefix::default()).await,
        check(&route, &Prefix::default()).await,
        plan(&route).await.map(|_| ()),
    ];
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, MigrateError::OtherSchema { version: 1, .. }), "{refused:?}");
        assert!(!refused.is_transient());
        assert!(refused.to_string().contains("point tokend at an empty database"), "{refused}");
    }
    for migrates in [true, false] {
        let mut config = installation.config();
        config.migrate = migrates;
        let ended = installation.launch(config).ended().await;
        assert!(matches!(ended, Err(ServeError::Database(MigrateError::OtherSchema { .. }))), "{ended:?}");
    }
    assert_eq!(shape(database).await, before);
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let database = Database::migrated().await;
    database.execute("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2").await;

    let migrated = migrate(&database.connect_settings(), &Prefix::default()).await;

    assert!(matches!(migrated, Err(MigrateError::OtherSchema { version: 2, .. })), "{migrated:?}");
}

#[tokio::test]
async fn a_replica_with_another_prefix_is_refused_at_the_start() {
    let installation = Installation::new().await;
    for migrates in [true, false] {
        let mut config = installation.config();
        (config.prefix, config.migrate) = (other_prefix(), migrates);

        let ended = installation.launch(config).ended().await;

        let Err(ServeError::Database(MigrateError::OtherPrefix { recorded, configured })) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!((&*recorded, &*configured), ("tokd", "acme"));
    }
}

#[tokio::test]
async fn the_prefix_chosen_before_the_first_migration_stays() {
    let database = Database::empty().await;
    migrate(&database.connect_settings(), &other_prefix()).await.unwrap();

    let again = migrate(&database.connect_settings(), &Prefix::default()).await;

    assert!(matches!(again, Err(MigrateError::OtherPrefix { .. })), "{again:?}");
    check(&database.connect_settings(), &other_prefix()).await.unwrap();
}
