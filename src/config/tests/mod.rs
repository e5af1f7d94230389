//! Precedence, refusals and defaults of the configuration, without touching the process's own
//! environment. This file has what the test files share.

mod console;
mod database;
mod documented;
mod effects;
mod integrations;
mod keyring;
mod links;
mod sources;
mod tls;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use tempfile::TempDir;

use super::*;

/// 32 zero bytes and 32 bytes of 0x01: keys for nothing but these tests.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const URL: &str = "postgres://tokend@localhost/tokend";

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    flags: ServeFlags,
}

#[derive(Parser)]
struct Migrate {
    #[command(flatten)]
    flags: MigrateFlags,
}

#[derive(Parser)]
struct Bootstrap {
    #[command(flatten)]
    flags: BootstrapFlags,
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    // The hosts of these tests are other machines; the TLS rule for those has separate tests.
    let mut all = vec![("HOME", "/home/ada"), ("TOKEND_DATABASE_INSECURE", "true")];
    all.extend_from_slice(pairs);
    Environment::of_pairs(&all, Account::Ordinary)
}

fn resolve(flags: &[&str], environment: &Environment) -> Result<(ServeSettings, Storage), ConfigError> {
    let line = ["serve"].iter().chain(flags);
    Serve::try_parse_from(line).unwrap().flags.resolve(environment)
}

fn serve(flags: &[&str], pairs: &[(&str, &str)]) -> Result<(ServeSettings, Storage), ConfigError> {
    resolve(flags, &environment(pairs))
}

fn refusal(flags: &[&str], pairs: &[(&str, &str)]) -> ConfigError {
    serve(flags, pairs).err().unwrap()
}

/// Everything that would be printed of an error, and its Debug.
fn message(error: &ConfigError) -> String {
    let mut text = format!("{error:?} {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn write(directory: &TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
