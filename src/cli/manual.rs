//! `tokend completions` and `tokend man`: what packages install beside the program, written by the program itself.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::output::print;
use super::{CommandError, CommandLine};

/// Flags of `tokend completions`.
#[derive(Args)]
pub(super) struct CompletionFlags {
    /// The shell
    shell: Shell,
}

/// Flags of `tokend man`.
#[derive(Args)]
pub(super) struct ManFlags {
    /// Directory for the pages, made where there is none: tokend.1, tokend-token-create.1 and so on
    directory: PathBuf,
}

pub(super) fn completions(flags: &CompletionFlags) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut CommandLine::command(), "tokend", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(flags: &ManFlags) -> Result<(), CommandError> {
    let written = fs::create_dir_all(&flags.directory)
        .and_then(|()| clap_mangen::generate_to(CommandLine::command(), &flags.directory));
    written.map_err(|source| CommandError::DataFile { path: flags.directory.clone(), source })
}
