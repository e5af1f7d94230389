//! `tokend rules`: rules that find secrets of this prefix in source code, in the formats of several
//! scanners.

use clap::{Args, ValueEnum};

use super::CommandError;
use super::output::print;
use crate::config::{Environment, PrefixFlags};
use crate::secret::Prefix;

/// Flags of `tokend rules`.
#[derive(Args)]
pub(super) struct RulesFlags {
    /// The scanner that the rule is for
    scanner: Scanner,
    #[command(flatten)]
    prefix: PrefixFlags,
}

/// The scanners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scanner {
    /// TOML for gitleaks --config
    Gitleaks,
    /// YAML for trufflehog --config
    Trufflehog,
    /// YAML for kingfisher --rules-path
    Kingfisher,
    /// Fields for GitHub's secret scanning: those of a custom pattern
    Github,
    /// The regular expression alone
    Regex,
}

pub(super) fn run(flags: RulesFlags, environment: &Environment) -> Result<(), CommandError> {
    let prefix = flags.prefix.resolve(environment)?;
    print(&rule(flags.scanner, &prefix))
}

/// Returns the rule. A prefix contains no character with a meaning in regular expressions or these formats.
fn rule(scanner: Scanner, prefix: &Prefix) -> String {
    let prefix = prefix.as_str();
    let secret = format!("{prefix}_[0-9A-Za-z]{{71}}");
    match scanner {
        Scanner::Gitleaks => format!(
            "title = \"tokend\"\n\n[[rules]]\nid = \"tokend-secret\"\ndescription = \"A secret of tokend\"\n\
             regex = '''\\b({secret})\\b'''\nsecretGroup = 1\nkeywords = [\"{prefix}_\"]\n"
        ),
        Scanner::Trufflehog => format!(
            "detectors:\n  - name: tokend-secret\n    keywords:\n      - {prefix}_\n    regex:\n      \
             secret: '\\b({secret})\\b'\n"
        ),
        Scanner::Kingfisher => format!(
            "rules:\n  - name: A secret of tokend\n    id: tokend.secret.1\n    pattern: '\\b({secret})\\b'\n    \
             min_entropy: 3.0\n    confidence: medium\n    examples: []\n"
        ),
        Scanner::Github => format!(
            "Pattern name:   tokend secret\nSecret format:  {secret}\nBefore secret:  \\A|[^0-9A-Za-z_]\n\
             After secret:   \\z|[^0-9A-Za-z_]\n"
        ),
        Scanner::Regex => format!("\\b{secret}\\b\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_the_pattern_of_the_configured_prefix() {
        let prefix = Prefix::parse("acme1").unwrap();
        for scanner in Scanner::value_variants() {
            let text = rule(*scanner, &prefix);
            assert!(text.contains("acme1_[0-9A-Za-z]{71}") && !text.contains("tokd"), "{text}");
        }
        toml::from_str::<toml::Table>(&rule(Scanner::Gitleaks, &prefix)).unwrap();
    }
}
