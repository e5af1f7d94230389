//! The commands as the program's parser defines them, so that a test of a kind of command covers
//! all of them.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _};
use tokend::cli::CommandLine;

/// Returns the names of all commands.
pub(crate) fn all() -> BTreeSet<String> {
    find(&|_| true)
}

/// Returns the names of the commands that have a flag of this name.
pub(crate) fn with(flag: &str) -> BTreeSet<String> {
    find(&|command| command.get_arguments().any(|argument| argument.get_long() == Some(flag)))
}

fn find(wanted: &impl Fn(&Command) -> bool) -> BTreeSet<String> {
    fn walk(command: &Command, name: &str, wanted: &impl Fn(&Command) -> bool, found: &mut BTreeSet<String>) {
        if !command.has_subcommands() && wanted(command) {
            found.insert(name.to_owned());
        }
        for below in command.get_subcommands() {
            walk(below, format!("{name} {}", below.get_name()).trim_start(), wanted, found);
        }
    }
    let mut found = BTreeSet::new();
    walk(&CommandLine::command(), "", wanted, &mut found);
    found
}
