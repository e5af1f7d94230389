//! Finds the Postgres of this machine to use: searches the directories of distributions and Homebrew
//! for the server's programs, which are usually not on PATH. Must never change or download anything.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

use super::account::Account;
use super::error::PrivatePostgresError;
use super::layout::Layout;
use super::settings::OLDEST_MAJOR;

/// Programs that must be in one directory: a client package alone has none of the three.
const PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_ctl"];
/// Directories with one installation per version: parent, prefix of the name, subdirectory.
const INSTALLATIONS: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
];
/// The command that installs a server, by package manager.
const INSTALL: [(&str, &str); 6] = [
    ("apt-get", "sudo apt-get install postgresql"),
    ("dnf", "sudo dnf install postgresql-server"),
    ("zypper", "sudo zypper install postgresql-server"),
    ("apk", "sudo apk add postgresql"),
    ("pacman", "sudo pacman -S postgresql"),
    ("brew", "brew install postgresql@17"),
];

/// The programs of one Postgres installation.
#[derive(Debug)]
pub(super) struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds the installation to use: of the major version that wrote the data, or, if there are none
    /// yet, the first that is new enough, PATH before the newest elsewhere.
    pub(super) fn find(account: &Account, layout: &Layout) -> Result<Self, PrivatePostgresError> {
        let data_major = layout.data_major()?;
        let mut unfit: Option<Self> = None;
        for directory in candidates() {
            let Some(major) = major_of(account, &directory) else {
                continue;
            };
            let found = Self { directory, major };
            if major >= OLDEST_MAJOR && data_major.is_none_or(|data| data == major) {
                return Ok(found);
            }
            if unfit.as_ref().is_none_or(|other| other.major < major) {
                unfit = Some(found);
            }
        }
        Err(match (unfit, data_major) {
            (None, _) => PrivatePostgresError::NotInstalled { install: install() },
            (Some(found), Some(data)) if data != found.major => {
                PrivatePostgresError::OtherMajor { directory: layout.data(), data, installed: found.major }
            }
            (Some(found), _) => PrivatePostgresError::TooOld {
                directory: found.directory,
                major: found.major,
                install: install(),
            },
        })
    }

    /// Finds the newest installation that is newer than `major` and can upgrade its data.
    pub(super) fn newest(account: &Account, major: u32) -> Option<Self> {
        let found = candidates().filter(|directory| directory.join("pg_upgrade").is_file());
        let found =
            found.filter_map(|directory| Some(Self { major: major_of(account, &directory)?, directory }));
        found.filter(|installed| installed.major > major).max_by_key(|installed| installed.major)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of another program of this installation.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.directory.join("initdb")
    }

    pub(super) fn pg_ctl(&self) -> PathBuf {
        self.directory.join("pg_ctl")
    }
}

/// Lists the directories with all programs: PATH first, then by version, highest first.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = INSTALLATIONS
        .iter()
        .flat_map(|&(parent, prefix, rest)| installations(Path::new(parent), prefix, rest))
        .collect();
    versions.sort_by_key(|&(version, _)| std::cmp::Reverse(version));
    search_path()
        .into_iter()
        .chain(versions.into_iter().map(|(_, directory)| directory))
        .filter(|directory| PROGRAMS.iter().all(|name| directory.join(name).is_file()))
}

fn installations(parent: &Path, prefix: &str, rest: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let version = leading_number(name.to_str()?.strip_prefix(prefix)?)?;
            Some((version, parent.join(&name).join(rest)))
        })
        .collect()
}

fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // With a relative entry, the program would depend on tokend's working directory.
    env::split_paths(&path).filter(|entry| entry.is_absolute()).collect()
}

/// Runs the server's program for its version, as the account that will run it: one that it cannot reach
/// or load does not count.
fn major_of(account: &Account, directory: &Path) -> Option<u32> {
    let output = account
        .command(directory.join("postgres"))
        .arg("--version")
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    leading_number(text.strip_prefix("postgres (PostgreSQL) ")?)
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

fn install() -> &'static str {
    let path = search_path();
    INSTALL
        .iter()
        .find(|(manager, _)| path.iter().any(|entry| entry.join(manager).is_file()))
        .map_or("your system's package `postgresql-server`", |&(_, line)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_begins_with_its_major_number() {
        assert_eq!(leading_number("15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(leading_number("19devel"), Some(19));
        assert_eq!(leading_number("9.6.24"), Some(9));
        assert_eq!(leading_number("common"), None);
        assert_eq!(leading_number(""), None);
    }

    #[test]
    fn installations_are_distinguished_from_other_directories() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["postgresql@16", "postgresql@9.6", "postgresql@x", "redis@7"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }

        let mut found = installations(parent.path(), "postgresql@", "bin");

        found.sort();
        let expected = ["postgresql@9.6/bin", "postgresql@16/bin"];
        assert_eq!(found, [(9, parent.path().join(expected[0])), (16, parent.path().join(expected[1]))]);
    }
}
