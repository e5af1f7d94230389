//! What is known of a setting beside its value, and `settings!`, which makes everything of a setting
//! from its one declaration in `declared` or `client`: its flag with the help, its variable, its key in the file,
//! and the method of `Sources` that asks for it. Knows no single setting.

use std::any::Any;
use std::path::{Path, PathBuf};

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

/// The commands that have a setting as a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Commands {
    /// `serve`, and those that prepare or inspect its database.
    WithDatabase,
    /// `serve` and `bootstrap`.
    Hashing,
    /// `serve`.
    Serve,
    /// Those that call a running tokend.
    Client,
    /// None: it has only a variable.
    Variable,
}

/// The declaration of a setting, apart from its type.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Its flag, with the dashes; without them it is the key in the file.
    pub(super) flag: &'static str,
    /// Its variable.
    pub(super) variable: &'static str,
    /// Another program's variable, which counts if its own is not set.
    pub(super) second_variable: Option<&'static str>,
    /// The name of the value in texts. A switch has none.
    pub(super) value_name: Option<&'static str>,
    /// The default, or a description of what holds without a value.
    pub(super) default: Option<&'static str>,
    /// The heading in help and documentation; none if it is empty.
    pub(super) heading: &'static str,
    /// The commands that have it as a flag.
    pub(super) commands: Commands,
    /// What it means: the manual.
    pub(super) help: &'static str,
    /// Makes the parser of the flag's value.
    pub(super) parser: fn() -> ValueParser,
}

impl Setting {
    /// Returns its key in the file, which is also the flag's id.
    pub(super) fn name(&self) -> &'static str {
        self.flag.trim_start_matches('-')
    }

    /// Returns the default as texts name it.
    pub(super) fn shown_default(&self) -> &'static str {
        self.default.unwrap_or(if self.value_name.is_some() { "none" } else { "off" })
    }

    /// Returns its variables as texts name them.
    pub(super) fn shown_variables(&self) -> String {
        let second = self.second_variable.map(|second| format!(", then {second}"));
        format!("{}{}", self.variable, second.unwrap_or_default())
    }

    /// Makes its flag.
    pub(super) fn argument(&self) -> Arg {
        let heading = Some(self.heading).filter(|heading| !heading.is_empty());
        let argument = Arg::new(self.name()).long(self.name()).help_heading(heading);
        let (argument, default) = match self.value_name {
            Some(name) => (argument.value_name(name), format!(" [default: {}]", self.shown_default())),
            None => (argument.action(ArgAction::SetTrue), String::new()),
        };
        let help = format!("{} [env: {}]{default}", self.help.trim(), self.shown_variables());
        argument.value_parser((self.parser)()).help(help)
    }

    /// Returns the value of its flag on a command line. A command may lack the flag.
    pub(super) fn of_flag<T: Clone + Send + Sync + 'static>(&self, matches: &ArgMatches) -> Option<T> {
        if self.commands == Commands::Variable {
            return None;
        }
        let there = matches.try_contains_id(self.name()).is_ok_and(|there| there);
        let given = there && matches.value_source(self.name()) == Some(ValueSource::CommandLine);
        if given { matches.get_one(self.name()).cloned() } else { None }
    }
}

/// The values that one source gives for a list of settings.
pub trait Values: Default {
    /// The list.
    const SETTINGS: &[Setting];

    /// Returns what the command line gives.
    fn from_matches(matches: &ArgMatches) -> Self;

    /// Returns a setting that is given.
    fn any(&self) -> Option<&'static Setting>;

    /// Makes the paths relative to a directory.
    fn relative_to(&mut self, directory: &Path);
}

/// Makes a path from the file relative to the file's directory; leaves other values.
pub(super) fn relative_to<T: 'static>(directory: &Path, value: &mut Option<T>) {
    if let Some(Some(path)) = (value as &mut dyn Any).downcast_mut::<Option<PathBuf>>() {
        *path = directory.join(&path);
    }
}

/// Spells the name of a field as a variable, in capitals, or as a flag, with dashes.
pub(super) const fn spelled<const LENGTH: usize>(text: &str, capitals: bool) -> [u8; LENGTH] {
    let mut spelled = [0; LENGTH];
    let mut index = 0;
    while index < LENGTH {
        spelled[index] = match text.as_bytes()[index] {
            byte if capitals => byte.to_ascii_uppercase(),
            b'_' => b'-',
            byte => byte,
        };
        index += 1;
    }
    spelled
}

/// Declares the settings, by the commands that have them as flags and by their heading:
///
/// ```text
/// /// Help
/// name: Type as "VALUE" then "SECOND_VARIABLE" = "default";
/// /// Help
/// name: Type as "VALUE" else "what holds without a value";
/// /// Help
/// name: Switch;
/// ```
///
/// Before all, `@extra name: Type;` declares a value that only the file can give. For each setting there is a field of `PartialSettings`, a constant of [`Setting`], and a method of `Sources`, which
/// returns the value if there is a default, a boolean for a switch, and otherwise an `Option`.
macro_rules! settings {
    (@spelled $prefix:literal $name:ident $capitals:literal) => {{
        const TEXT: &str = concat!($prefix, stringify!($name));
        const SPELLED: [u8; TEXT.len()] = $crate::config::setting::spelled(TEXT, $capitals);
        match str::from_utf8(&SPELLED) {
            Ok(text) => text,
            Err(_) => TEXT,
        }
    }};
    (@one $text:literal) => { Some($text) };
    (@one) => { None };
    (@returned $type:ty) => { bool };
    (@returned $type:ty, $value:literal) => { Option<$type> };
    (@returned $type:ty, $value:literal = $default:literal) => { $type };
    (@ask $sources:ident $name:ident) => {
        Ok($sources.choose(&Setting::$name, |settings| &mut settings.$name)?.is_some_and(Switch::is_on))
    };
    (@ask $sources:ident $name:ident, $value:literal) => {
        $sources.choose(&Setting::$name, |settings| &mut settings.$name)
    };
    (@ask $sources:ident $name:ident, $value:literal = $default:literal) => {
        $sources.choose_or(&Setting::$name, |settings| &mut settings.$name)
    };
    ($(@extra $extra:ident: $extra_type:ty;)? $($commands:ident $heading:literal {$(
        $(#[doc = $help:literal])+
        $(@$skip:ident)? $name:ident: $type:ty
        $(as $value:literal $(then $second:literal)? $(= $default:literal)? $(else $absent:literal)?)?;
    )+})+) => {
        /// The settings that one source gives: the command line or the file.
        #[derive(Default, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct PartialSettings {
            $($($(#[serde($skip)])? pub(super) $name: Option<$type>,)+)+
            $(pub(super) $extra: $extra_type,)?
        }

        impl Values for PartialSettings {
            const SETTINGS: &[Setting] = &[$($(Setting::$name),+),+];

            fn from_matches(matches: &ArgMatches) -> Self {
                Self { $($($name: Setting::$name.of_flag(matches),)+)+ $($extra: Default::default())? }
            }

            fn any(&self) -> Option<&'static Setting> {
                None$($(.or(self.$name.is_some().then_some(&Setting::$name)))+)+
            }

            fn relative_to(&mut self, directory: &Path) {
                $($(relative_to(directory, &mut self.$name);)+)+
            }
        }

        #[expect(non_upper_case_globals, reason = "each has the name of its field")]
        impl Setting {
            $($(pub(super) const $name: Self = Self {
                flag: settings!(@spelled "--" $name false),
                variable: settings!(@spelled "tokend_" $name true),
                second_variable: settings!(@one $($($second)?)?),
                value_name: settings!(@one $($value)?),
                default: settings!(@one $($($default)? $($absent)?)?),
                heading: $heading,
                commands: Commands::$commands,
                help: concat!($($help),+),
                parser: || clap::value_parser!($type).into(),
            };)+)+
        }

        impl Sources<'_> {
            $($($(#[doc = $help])+
            pub(super) fn $name(
                &mut self,
            ) -> Result<settings!(@returned $type $(, $value $(= $default)?)?), ConfigError> {
                settings!(@ask self $name $(, $value $(= $default)?)?)
            })+)+
        }
    };
}

pub(super) use settings;
