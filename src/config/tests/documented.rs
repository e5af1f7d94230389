//! The tables of docs/configuration.md are those that the declarations of the settings yield.
//! `UPDATE_DOCS=1 cargo test --lib documented` writes them.

use super::setting::{Commands, Setting, Values as _};
use super::*;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const END: &str = "\n<!-- Until here. -->";

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Writes flags, variables, paths and addresses as code.
fn prose(help: &str) -> String {
    let words = help.trim().split(' ').map(|word| {
        let bare = word.trim_end_matches([',', ';', ':', '.']);
        let marked =
            bare.contains("://") || ["--", "/", "~/", "TOKEND_", "["].iter().any(|b| bare.starts_with(b));
        if marked { code(bare) + &word[bare.len()..] } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The list of settings of the server, or of the commands that call one.
#[derive(Clone, Copy, PartialEq)]
enum List {
    Server,
    Client,
}

impl List {
    fn settings(self) -> &'static [Setting] {
        match self {
            Self::Server => declared::PartialSettings::SETTINGS,
            Self::Client => client::PartialSettings::SETTINGS,
        }
    }

    fn head(self) -> &'static str {
        match self {
            Self::Server => {
                "| flag of `serve` | environment | in the file | default | |\n|---|---|---|---|---|\n"
            }
            Self::Client => "| flag | environment | default | |\n|---|---|---|---|\n",
        }
    }

    fn begin(self) -> String {
        let file = match self {
            Self::Server => "declared",
            Self::Client => "client",
        };
        format!("<!-- From src/config/{file}.rs, by UPDATE_DOCS=1 cargo test --lib documented. -->\n")
    }

    fn row(self, setting: &Setting) -> String {
        let value = setting.value_name.map(|name| format!(" {name}")).unwrap_or_default();
        let variables = setting.shown_variables().split(", ").map(code).collect::<Vec<_>>().join(", ");
        let default = setting.shown_default();
        let plain = default.contains(' ') || ["none", "off"].contains(&default);
        let mut cells = vec![
            code(&format!("{}{value}", setting.flag)),
            variables.replace("`then ", "then `"),
            code(setting.name()),
            if plain { prose(default) } else { code(default) },
            prose(setting.help),
        ];
        if setting.flag == "--config" {
            cells[2].clear();
        }
        if setting.commands == Commands::Variable {
            cells[0].clear();
            // The server's file has no secret.
            cells[2].clear();
        }
        if self == Self::Client {
            cells.remove(2);
        }
        format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |")
    }

    fn tables(self) -> String {
        let mut headings: Vec<&str> = Vec::new();
        for setting in self.settings() {
            if !headings.contains(&setting.heading) {
                headings.push(setting.heading);
            }
        }
        let table = |heading: &str| {
            let of_heading = self.settings().iter().filter(|setting| setting.heading == heading);
            let rows: String = of_heading.map(|setting| self.row(setting)).collect();
            let heading = if heading.is_empty() { String::new() } else { format!("\n### {heading}\n") };
            format!("{heading}\n{}{rows}", self.head())
        };
        headings.into_iter().map(table).collect()
    }
}

#[test]
fn every_setting_is_documented_as_it_is_declared() {
    let mut guide = fs::read_to_string(GUIDE).unwrap();
    for list in [List::Server, List::Client] {
        let (before, rest) = guide.split_once(&list.begin()).unwrap();
        let (documented, after) = rest.split_once(END).unwrap();
        let tables = list.tables();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            guide = [before, &list.begin(), &tables, END, after].concat();
            fs::write(GUIDE, &guide).unwrap();
        } else {
            assert!(documented == tables, "write them: UPDATE_DOCS=1 cargo test --lib documented");
        }
    }
}
