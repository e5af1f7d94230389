//! The pages that find out, and the templates that lay them out.

use askama::Template;
use time::OffsetDateTime;

use crate::api::console::commands::Lines;
use crate::api::console::form::Problems;
use crate::api::console::pages::{Frame, visible};
use crate::domain::{Token, TokenState};

/// Takes a text, and says what was found in the one before.
#[derive(Template)]
#[template(path = "find/secret_scan.html")]
pub(super) struct SecretScan {
    pub(super) frame: Frame,
    pub(super) prefix: String,
    pub(super) organizations: bool,
    /// What was found; `None`: nothing was sent yet.
    pub(super) found: Option<Vec<FoundView>>,
    pub(super) left_out: usize,
    /// The commands that revoke a token by its secret.
    pub(super) lines: Lines,
}

/// A word of the text, without the word.
pub(super) struct FoundView {
    pub(super) id: String,
    /// What was in the text.
    pub(super) what: &'static str,
    /// What it means, and the class that colours it.
    pub(super) meaning: (&'static str, &'static str),
    /// The token, if the person may see one.
    pub(super) token: Option<Owner>,
    pub(super) may_revoke: bool,
}

/// Whose token it is, and its state.
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) user: String,
    pub(super) organization: String,
    pub(super) state: (&'static str, &'static str),
}

impl Owner {
    pub(super) fn new(token: &Token, now: OffsetDateTime) -> Self {
        Self {
            name: visible(token.name.as_str()),
            user: visible(token.user_id.as_str()),
            organization: visible(token.organization_id.as_str()),
            state: match token.state(now) {
                TokenState::Active => ("Active", "good"),
                TokenState::Disabled => ("Disabled", "warn"),
                TokenState::Expired => ("Expired", "off"),
                TokenState::Revoked => ("Revoked", "bad"),
                _ => ("Unknown", "off"),
            },
        }
    }
}

/// Takes a token and how it is used, and says why it is accepted or not.
#[derive(Template)]
#[template(path = "find/explain.html")]
pub(super) struct Explain {
    pub(super) frame: Frame,
    /// The id that was typed; never a secret.
    pub(super) token: String,
    pub(super) scopes: String,
    pub(super) address: String,
    pub(super) problems: Problems,
    pub(super) verdict: Option<VerdictView>,
    pub(super) lines: Lines,
}

/// A verdict, and the rules that led to it.
pub(super) struct VerdictView {
    pub(super) accepted: bool,
    pub(super) word: &'static str,
    /// Each rule in its order: how it ended, and in words.
    pub(super) rules: Vec<RuleView>,
    /// The token, if the person may see it.
    pub(super) token: Option<(String, Owner)>,
}

/// A rule, and how it ended.
pub(super) struct RuleView {
    /// As it is called.
    pub(super) name: &'static str,
    /// In words, and the class that colours it.
    pub(super) outcome: (&'static str, &'static str),
    pub(super) detail: String,
}
