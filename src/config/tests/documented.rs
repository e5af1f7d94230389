//! The tables of docs/configuration.md are those that the declarations of the settings yield.
//! `UPDATE_DOCS=1 cargo test --lib documented` writes them.

use super::declared::SETTINGS;
use super::setting::Setting;
use super::*;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const BEGIN: &str = "<!-- From src/config/declared.rs, by UPDATE_DOCS=1 cargo test --lib documented. -->\n";
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

fn row(setting: &Setting) -> String {
    let value = setting.value_name.map(|name| format!(" {name}")).unwrap_or_default();
    let flag = code(&format!("{}{value}", setting.flag));
    let variables = setting.shown_variables().split(", ").map(code).collect::<Vec<_>>().join(", ");
    let variables = variables.replace("`then ", "then `");
    let key = if setting.flag == "--config" { String::new() } else { code(setting.name()) };
    let default = setting.shown_default();
    let plain = default.contains(' ') || ["none", "off"].contains(&default);
    let default = if plain { prose(default) } else { code(default) };
    format!("| {flag} | {variables} | {key} | {default} | {} |\n", prose(setting.help))
}

fn tables() -> String {
    let mut headings: Vec<&str> = Vec::new();
    for setting in SETTINGS {
        if !headings.contains(&setting.heading) {
            headings.push(setting.heading);
        }
    }
    let table = |heading: &str| {
        let rows: String = SETTINGS.iter().filter(|setting| setting.heading == heading).map(row).collect();
        let heading = if heading.is_empty() { String::new() } else { format!("\n### {heading}\n") };
        format!(
            "{heading}\n| flag of `serve` | environment | in the file | default | |\n|---|---|---|---|---|\n{rows}"
        )
    };
    headings.into_iter().map(table).collect()
}

#[test]
fn every_setting_is_documented_as_it_is_declared() {
    let guide = fs::read_to_string(GUIDE).unwrap();
    let (before, rest) = guide.split_once(BEGIN).unwrap();
    let (documented, after) = rest.split_once(END).unwrap();
    let tables = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(GUIDE, [before, BEGIN, &tables, END, after].concat()).unwrap();
    } else {
        assert!(documented == tables, "write them: UPDATE_DOCS=1 cargo test --lib documented");
    }
}
