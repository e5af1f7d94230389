//! Databases that do not become usable by waiting, or that may still do so: the messages, and when
//! they appear.

use std::net::TcpListener;
use std::thread;

use super::databases::Database;
use super::program::{TestDir, printed, run, text};

fn refusal(url: &str) -> String {
    let keys = printed(run(&["keygen"], &[], ""));
    let test_dir = TestDir::new();
    let mut server = test_dir
        .start(&["serve", "--listen", "127.0.0.1:0"], &[("DATABASE_URL", url), ("TOKEND_KEYS", &keys)]);
    assert_eq!(server.end().code(), Some(1), "{}", server.stderr());
    server.stderr()
}

#[test]
fn read_only_sessions_are_refused_with_their_cause() {
    let database = Database::new();
    let url = database.url();

    let by_url = refusal(&format!("{url}&options=-c%20default_transaction_read_only%3Don"));
    database.execute("CREATE ROLE read_only LOGIN SUPERUSER");
    database.execute("ALTER ROLE read_only SET default_transaction_read_only = on");
    let by_role = refusal(&url.replace("//tokend@", "//read_only@"));

    assert!(by_url.contains("default_transaction_read_only = on in the options"), "{by_url}");
    assert!(by_role.contains("'read_only'") && by_role.contains("ALTER ROLE"), "{by_role}");
}

#[test]
fn a_database_without_utf8_is_refused_by_name() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = Database::of_encoding(encoding);
        let url = database.url();

        let served = refusal(&url);
        let migrated = run(&["migrate"], &[("DATABASE_URL", &url)], "");

        assert_eq!(migrated.status.code(), Some(1));
        for output in [served, text(&migrated.stderr)] {
            assert!(
                output.contains("'process_") && output.contains(encoding) && output.contains("UTF8"),
                "{output}"
            );
        }
    }
}

#[test]
fn a_wrong_search_path_creates_no_second_installation() {
    let database = Database::new();
    let url = database.url();
    printed(run(&["migrate"], &[("DATABASE_URL", &url)], ""));
    database.execute("CREATE SCHEMA elsewhere");
    let elsewhere = format!("{url}&options=-c%20search_path%3Delsewhere");

    let served = refusal(&elsewhere);
    let migrated = run(&["migrate"], &[("DATABASE_URL", &elsewhere)], "");

    for output in [served, text(&migrated.stderr)] {
        assert!(output.contains("schema 'public'") && output.contains("'elsewhere'"), "{output}");
    }
    // With the original search path it continues to work.
    printed(run(&["migrate"], &[("DATABASE_URL", &url)], ""));
    let both = format!("{url}&options=-c%20search_path%3Dpublic,elsewhere");
    printed(run(&["migrate"], &[("DATABASE_URL", &both)], ""));
}

#[test]
fn a_proxy_without_a_live_server_is_reported_as_such() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    // Accepts and closes, as HAProxy does.
    thread::spawn(move || proxy.incoming().for_each(drop));
    let keys = printed(run(&["keygen"], &[], ""));
    for mode in ["prefer", "disable"] {
        let url = format!("postgres://tokend@{address}/tokend?sslmode={mode}");
        let test_dir = TestDir::new();
        let mut server = test_dir
            .start(&["serve", "--listen", "127.0.0.1:0"], &[("DATABASE_URL", &url), ("TOKEND_KEYS", &keys)]);

        server.await_log("a proxy without a live server");
        assert_eq!(server.stop().code(), Some(0));
    }
}
