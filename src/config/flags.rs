//! Which settings the commands that use a database or serve have as flags. `declared` declares them;
//! `resolve` fills what is missing from the environment, the file and the defaults.

use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::declared::{PartialSettings, SETTINGS};
use super::setting::{Commands, Setting};

/// The settings of one kind of command, as its flags.
pub struct Flags<C> {
    pub(super) settings: PartialSettings,
    command: PhantomData<C>,
}

/// A kind of command.
pub trait Selection {
    /// Returns the flag for a setting, if the command has one.
    fn flag(setting: &Setting) -> Option<Arg>;
}

impl<C: Selection> Args for Flags<C> {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().filter_map(C::flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C> FromArgMatches for Flags<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { settings: PartialSettings::from_matches(matches), command: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `tokend serve`
pub enum Serve {}

/// Flags of `tokend serve`.
pub type ServeFlags = Flags<Serve>;

impl Selection for Serve {
    fn flag(setting: &Setting) -> Option<Arg> {
        Some(setting.argument())
    }
}

/// `tokend bootstrap`
pub enum Bootstrap {}

/// Flags of `tokend bootstrap`.
pub type BootstrapFlags = Flags<Bootstrap>;

impl Selection for Bootstrap {
    fn flag(setting: &Setting) -> Option<Arg> {
        let hashing = || (setting.commands == Commands::Hashing).then(|| setting.argument());
        KeyStatus::flag(setting).or_else(hashing)
    }
}

/// Commands that look at, or change, the database alone.
pub enum Database {}

/// What commands need that look at, or change, the database alone.
pub type DatabaseFlags = Flags<Database>;

impl Selection for Database {
    fn flag(setting: &Setting) -> Option<Arg> {
        (setting.commands == Commands::WithDatabase).then(|| setting.argument())
    }
}

/// Flags of `tokend migrate`.
#[derive(Args)]
pub struct MigrateFlags {
    #[command(flatten)]
    pub(super) database: DatabaseFlags,

    /// Change nothing: print the migrations that the database lacks, and the locks on existing tables that
    /// each of them holds until it is done
    #[arg(long)]
    pub(super) plan: bool,
}

/// `tokend key status`
pub enum KeyStatus {}

/// Flags of `tokend key status`.
pub type KeyStatusFlags = Flags<KeyStatus>;

impl Selection for KeyStatus {
    fn flag(setting: &Setting) -> Option<Arg> {
        let private = Setting {
            help: "Use the private Postgres of `tokend serve` in this directory, also while serve runs; its \
                   keyring is used unless another one is set",
            default: Some("without a database URL, that of `tokend serve`"),
            ..Setting::data_dir
        };
        let others = [
            Setting::database_url,
            Setting::direct_database_url,
            Setting::database_pooling,
            Setting::database_password_file,
        ];
        if setting.name() == private.name() {
            return Some(private.argument().conflicts_with_all(others.map(|setting| setting.name())));
        }
        Database::flag(setting)
    }
}

/// `tokend data …`
pub enum Data {}

/// Flags of `tokend data …`.
pub type DataFlags = Flags<Data>;

impl Selection for Data {
    fn flag(setting: &Setting) -> Option<Arg> {
        let file = Setting { help: "TOML file of `tokend serve`, for its data-dir", ..Setting::config };
        let directory = Setting {
            help: "Directory of the private Postgres",
            default: Some("as of `tokend serve`"),
            heading: "",
            ..Setting::data_dir
        };
        one_of([file, directory], setting)
    }
}

/// Commands that only look at secrets.
pub enum Secrets {}

/// What commands need that only look at secrets.
pub type PrefixFlags = Flags<Secrets>;

impl Selection for Secrets {
    fn flag(setting: &Setting) -> Option<Arg> {
        let file = Setting { help: "TOML file of `tokend serve`, for its secret-prefix", ..Setting::config };
        let prefix = Setting { help: "What secrets begin with", heading: "", ..Setting::secret_prefix };
        one_of([file, prefix], setting)
    }
}

fn one_of(settings: [Setting; 2], setting: &Setting) -> Option<Arg> {
    settings.iter().find(|one| one.name() == setting.name()).map(Setting::argument)
}
