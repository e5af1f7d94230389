//! Which settings each command has as flags. `declared` and `client` declare them; `resolve` fills what is missing from the environment, the file and the defaults.

use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::client;
use super::declared::PartialSettings;
use super::setting::{Commands, Setting, Values};

/// The settings of one kind of command, as its flags.
pub struct Flags<C: Selection> {
    pub(super) settings: C::Settings,
    command: PhantomData<C>,
}

/// A kind of command.
pub trait Selection {
    /// The values of all settings in the list that its flags are from.
    type Settings: Values;

    /// Returns the flag for a setting, if the command has one.
    fn flag(setting: &Setting) -> Option<Arg>;
}

impl<C: Selection> Args for Flags<C> {
    fn augment_args(command: Command) -> Command {
        command.args(C::Settings::SETTINGS.iter().filter_map(C::flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: Selection> FromArgMatches for Flags<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { settings: C::Settings::from_matches(matches), command: PhantomData })
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
    type Settings = PartialSettings;

    fn flag(setting: &Setting) -> Option<Arg> {
        (setting.commands != Commands::Variable).then(|| setting.argument())
    }
}

/// `tokend bootstrap`
pub enum Bootstrap {}

/// Flags of `tokend bootstrap`.
pub type BootstrapFlags = Flags<Bootstrap>;

impl Selection for Bootstrap {
    type Settings = PartialSettings;

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
    type Settings = PartialSettings;

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
    type Settings = PartialSettings;

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
    type Settings = PartialSettings;

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

/// Commands that call a running tokend.
pub enum Client {}

/// The address of a running tokend, as flags.
pub type AddressFlag = Flags<Client>;

impl Selection for Client {
    type Settings = client::PartialSettings;

    fn flag(setting: &Setting) -> Option<Arg> {
        (setting.commands == Commands::Client).then(|| setting.argument())
    }
}

/// Commands that only look at secrets.
pub enum Secrets {}

/// What commands need that only look at secrets.
pub type PrefixFlags = Flags<Secrets>;

impl Selection for Secrets {
    type Settings = PartialSettings;

    fn flag(setting: &Setting) -> Option<Arg> {
        let file = Setting { help: "TOML file of `tokend serve`, for its secret-prefix", ..Setting::config };
        let prefix = Setting { help: "What secrets begin with", heading: "", ..Setting::secret_prefix };
        one_of([file, prefix], setting)
    }
}

fn one_of(settings: [Setting; 2], setting: &Setting) -> Option<Arg> {
    settings.iter().find(|one| one.name() == setting.name()).map(Setting::argument)
}
