//! The `tokend` program: parses the command line, runs one command, says what went wrong.
//!
//! Everything else is in the library, where tests can reach it. Exit status 2 for a wrong command
//! line comes from clap; a command chooses its own, and 1 stands for every failure.

use std::io::{self, Write};
use std::process::ExitCode;

use tokend::cli;

/// Many small allocations a call, from every thread: glibc's own allocator costs a tenth of a Verify more.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let status = error.status();
            report(&error.into());
            ExitCode::from(status)
        }
    }
}

/// Writes an error and its causes to standard error, where nothing more can be done if it fails.
fn report(error: &anyhow::Error) {
    let mut output = io::stderr().lock();
    let mut said = vec![error.to_string()];
    let _ = writeln!(output, "error: {error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some libraries wrap an error in others of the same words.
        if !said.contains(&cause) {
            let _ = writeln!(output, "  because: {cause}");
            said.push(cause);
        }
    }
}
