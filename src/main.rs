//! The `tokend` program: parses the command line, runs one command, reports its error.
//!
//! Everything else is in the library, where tests can reach it. Exit status 2 for a wrong command
//! line comes from clap; a command may choose its own status, and any other failure is 1.

use std::io::{self, Write};
use std::process::ExitCode;

use tokend::cli;

/// A call makes many small allocations on every thread: with glibc's allocator a Verify costs a tenth more.
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

/// Writes an error and its causes to standard error. A failed write is ignored: nothing more can be done.
fn report(error: &anyhow::Error) {
    let mut output = io::stderr().lock();
    let mut said = vec![error.to_string()];
    let _ = writeln!(output, "error: {error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some libraries wrap an error in another with the same text.
        if !said.contains(&cause) {
            let _ = writeln!(output, "  because: {cause}");
            said.push(cause);
        }
    }
}
