//! The command line: one file per command, run by `main`. Commands resolve their configuration,
//! then call the server, the store or, as a client, a running tokend. Only they write to standard
//! output, which is for scripts; everything else for people goes to standard error.

mod arguments;
mod audit;
mod bootstrap;
mod caller;
mod client;
mod client_error;
mod console;
mod core_dumps;
mod data;
mod data_dir;
mod database;
mod error;
mod greeting;
mod healthcheck;
mod keep_postgres_running;
mod key;
mod keygen;
mod login;
mod manual;
mod migrate;
mod open_files;
mod output;
mod owner_kind;
mod plan;
mod policy;
mod request_id;
mod rpc_error;
mod rules;
mod secret;
mod secret_output;
mod serve;
mod signals;
mod times;
mod token;
mod token_fields;
mod unreachable;
mod usage;
mod user;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use arguments::parse;
pub use client_error::ClientError;
pub use error::CommandError;
pub use rpc_error::RpcError;

use crate::config::{Environment, MigrateFlags, ServeFlags};

/// API tokens as a gRPC service in front of Postgres.
///
/// Every setting may come from a flag, the environment, a TOML file (--config) or a default; the first of
/// these wins. An empty variable counts as not set; an empty value of a flag is refused. No flag takes a
/// secret or a password.
#[derive(Parser)]
#[command(name = "tokend", version, after_help = EXIT_CODES)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit status: 0 done, 1 failed or refused, 2 wrong usage; `tokend token verify` \
     also 3: the secret is not valid; `tokend secret check` also 3: the text holds no secret.";

#[derive(Subcommand)]
enum Command {
    /// Serve gRPC, on a private Postgres unless a database URL is given
    ///
    /// Without a database URL, serve starts a private Postgres in --data-dir, creates the first root token
    /// and stores its secret in that directory; a terminal shows it once. With a database URL, serve is a
    /// replica without state: any number of replicas may share the database and the keyring.
    Serve(Box<ServeFlags>),
    /// Create a root token if no active one exists, and print only its secret
    ///
    /// Applies migrations first. Refuses (exit status 1) when an active root token exists.
    Bootstrap(bootstrap::Flags),
    /// Print a new key as a line for a keyring file
    ///
    /// `tokend keygen --output keyring` creates a keyring. To rotate the key, add a new one below
    /// the others on every replica, and then move it to the first line on each: replicas that lack it verify slowly.
    Keygen(secret_output::OutputFlag),
    /// Apply the database's migrations
    Migrate(MigrateFlags),
    /// Exit with status 0 only if a running tokend reports that it is serving
    Healthcheck(client::AddressFlag),
    /// Log in by the console, so that commands need no secret in the environment
    ///
    /// Opens a page of the console in a browser, where you are asked whether this command line may act as you. It gets
    /// a token of its own, with tokend:self, that lasts at most 24 hours. Its secret is kept in a file that nobody else
    /// can read, below `XDG_STATE_HOME` or ~/.local/state, and sent to this address alone. Commands use it where
    /// `TOKEND_SECRET` and `TOKEND_SECRET_FILE` are not set, and replace it by a new one from time to time.
    Login(login::LoginFlags),
    /// Revoke the token of a login, and remove its file
    Logout(login::LogoutFlags),
    /// Print a script that completes commands and flags in a shell
    ///
    /// Such as `tokend completions bash > /etc/bash_completion.d/tokend`.
    Completions(manual::CompletionFlags),
    /// Write manual pages, one for each command
    ///
    /// Such as `tokend man /usr/local/share/man/man1`.
    Man(manual::ManFlags),
    /// Print a rule with which a scanner finds secrets in source code
    Rules(rules::RulesFlags),
    /// Check a secret without a server
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Maintain the data of a private Postgres while no server uses it
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Inspect the keyring
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Create, get, list, change, rotate, revoke, disable and verify tokens of a running tokend
    ///
    /// The caller's own secret is read from `TOKEND_SECRET`, otherwise from the file that
    /// `TOKEND_SECRET_FILE` names, otherwise it is that of `tokend login`.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show the audit log of a running tokend, check its seals, delete old events
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Print the changes to tokens of a running tokend as they happen
    ///
    /// Ends with Ctrl-C or SIGTERM, and then prints the position to continue from with --after.
    Watch(watch::WatchFlags),
    /// Set, show, list and delete plans: the limits that tokens name
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Show and set an organization's policy for its tokens
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Print a link that signs in to the console of a running tokend
    #[command(subcommand)]
    Console(console::ConsoleCommand),
    /// List, disable and enable users, revoke all tokens of one, open and end portal sessions
    #[command(subcommand)]
    User(user::UserCommand),
    /// Show how often tokens of a running tokend were verified, and with which verdicts
    ///
    /// By hour or by day, in UTC. The latest verifications are missing until the replicas have written them: 30 seconds
    /// unless configured.
    #[command(after_help = token::CALLER_HELP)]
    Usage(usage::UsageFlags),
}

impl Command {
    /// Returns whether nothing is lost if the rest of the output is not read: neither a secret, nor
    /// work that continues only as its output is read.
    fn only_shows(&self) -> bool {
        match self {
            Self::Serve(_) | Self::Bootstrap(_) | Self::Keygen(_) => false,
            Self::Token(command) => command.only_shows(),
            Self::Policy(command) => command.only_shows(),
            _ => true,
        }
    }
}

/// Runs the command that the command line names.
///
/// # Errors
/// [`CommandError`]: the process should print it and exit with its status.
pub fn run(line: CommandLine) -> Result<ExitCode, CommandError> {
    core_dumps::disable();
    let only_shows = line.command.only_shows();
    match dispatch(line.command) {
        // As in `tokend token list | head`.
        Err(error) if only_shows && error.is_broken_pipe() => Ok(ExitCode::SUCCESS),
        outcome => outcome,
    }
}

fn dispatch(command: Command) -> Result<ExitCode, CommandError> {
    let environment = Environment::of_process();
    match command {
        Command::Serve(flags) => {
            let (settings, storage) = flags.resolve(&environment)?;
            serve::run(settings, storage)?;
        }
        Command::Bootstrap(flags) => bootstrap::run(flags, &environment)?,
        Command::Keygen(output) => keygen::run(output)?,
        Command::Migrate(flags) => migrate::run(flags.resolve(&environment)?)?,
        Command::Healthcheck(address) => healthcheck::run(address, &environment)?,
        Command::Login(flags) => login::login(flags, &environment)?,
        Command::Logout(flags) => login::logout(flags, &environment)?,
        Command::Data(command) => data::run(command, &environment)?,
        Command::Key(command) => key::run(command, &environment)?,
        Command::Watch(flags) => watch::run(flags, &environment)?,
        Command::Audit(command) => audit::run(command, &environment)?,
        Command::Plan(command) => plan::run(command, &environment)?,
        Command::Policy(command) => policy::run(command, &environment)?,
        Command::Console(command) => console::run(command, &environment)?,
        Command::User(command) => user::run(command, &environment)?,
        Command::Usage(flags) => usage::run(flags, &environment)?,
        Command::Completions(flags) => manual::completions(&flags)?,
        Command::Man(flags) => manual::man(&flags)?,
        Command::Rules(flags) => rules::run(flags, &environment)?,
        Command::Secret(command) => return secret::run(command, &environment),
        Command::Token(command) => return token::run(command, &environment),
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates a runtime for a command that does one thing at a time.
fn single_threaded() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CommandError::Runtime)
}
