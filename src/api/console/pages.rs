//! The pages: what each shows, and the templates that lay it out. Every text is escaped where it is written, and
//! characters that hide or turn text are shown as codes. Filled by the other files of the console.

use std::fmt::Write as _;

use askama::Template;
use time::{Duration, OffsetDateTime};

use super::assets::ASSETS;
use super::form::Problems;
use super::list_query::ListQuery;
use super::moments::Moment;
use super::new_form::NewForm;
use crate::domain::text::is_deceptive;
use crate::domain::{Token, TokenState};
use crate::secret::Prefix;

/// How long before its expiration a token is said to expire soon, but not before the last quarter of its life.
const SOON: Duration = Duration::days(7);

/// How many characters of an id are shown as the beginning of its secret.
const HINT: usize = 8;

/// How many scopes of a token are listed.
const SCOPES: usize = 3;

/// Who is signed in.
#[derive(Debug, Clone, Default)]
pub(super) struct Who {
    pub(super) name: String,
    pub(super) user: String,
}

impl Who {
    pub(super) fn new(name: &str, user: &str) -> Self {
        Self { name: visible(name), user: visible(user) }
    }
}

/// What is the same on all pages.
pub(super) struct Frame {
    pub(super) who: Option<Who>,
    pub(super) form_token: String,
    /// The names of the assets.
    pub(super) style: &'static str,
    pub(super) script: &'static str,
    pub(super) icon: &'static str,
}

impl Frame {
    pub(super) fn new(who: Option<Who>, form_token: String) -> Self {
        let assets = &*ASSETS;
        Self {
            who,
            form_token,
            style: &assets.style.name,
            script: &assets.script.name,
            icon: &assets.icon.name,
        }
    }
}

/// The first page.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignIn {
    pub(super) frame: Frame,
    pub(super) notice: Option<&'static str>,
    pub(super) problem: Option<String>,
    /// The page to go to afterwards.
    pub(super) next: String,
}

/// Loads the page once more, from itself: the first request, by a link on another site, has no cookie.
#[derive(Template)]
#[template(path = "again.html")]
pub(super) struct Again {
    pub(super) frame: Frame,
    pub(super) address: String,
}

/// An error, or a short message.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message {
    pub(super) frame: Frame,
    pub(super) title: &'static str,
    pub(super) text: String,
}

/// The list of tokens.
#[derive(Template)]
#[template(path = "list.html")]
pub(super) struct List {
    pub(super) frame: Frame,
    pub(super) query: ListQuery,
    pub(super) problems: Problems,
    /// Whether organizations are shown: to those who see several.
    pub(super) organizations: bool,
    pub(super) may_write: bool,
    pub(super) tokens: Vec<TokenView>,
    /// The address of the next page.
    pub(super) next: Option<String>,
}

/// The form for a new token.
#[derive(Template)]
#[template(path = "new.html")]
pub(super) struct New {
    pub(super) frame: Frame,
    pub(super) form: NewForm,
    pub(super) problems: Problems,
    /// What happened to the form as a whole, and whether its token exists already.
    pub(super) outcome: Option<(String, bool)>,
    pub(super) organizations: bool,
    pub(super) expirations: Vec<(&'static str, &'static str, Moment)>,
    pub(super) privileges: Vec<(&'static str, &'static str)>,
    /// Whether the secret is asked for once more.
    pub(super) proof: bool,
}

/// A new token, with its secret.
#[derive(Template)]
#[template(path = "created.html")]
pub(super) struct Created<'a> {
    pub(super) frame: Frame,
    pub(super) token: TokenView,
    pub(super) secret: &'a str,
    pub(super) nonce: String,
    pub(super) organizations: bool,
}

/// One token.
#[derive(Template)]
#[template(path = "token.html")]
pub(super) struct One {
    pub(super) frame: Frame,
    pub(super) token: TokenView,
    pub(super) organizations: bool,
    pub(super) may_revoke: bool,
}

/// The question before a revocation.
#[derive(Template)]
#[template(path = "revoke.html")]
pub(super) struct Revoke {
    pub(super) frame: Frame,
    pub(super) token: TokenView,
    pub(super) organizations: bool,
    pub(super) reason: String,
    pub(super) only_this: bool,
    pub(super) problems: Problems,
    /// Why it was not revoked.
    pub(super) outcome: Option<String>,
    /// Whether the secret is asked for once more.
    pub(super) proof: bool,
}

/// What a revocation did.
#[derive(Template)]
#[template(path = "revoked.html")]
pub(super) struct Revoked {
    pub(super) frame: Frame,
    pub(super) token: TokenView,
    pub(super) organizations: bool,
    /// From when on it is refused everywhere: for people, and for machines.
    pub(super) effective: (String, String),
    /// The server's time, by which the page counts down.
    pub(super) now: String,
}

/// A token as it is shown.
pub(super) struct TokenView {
    pub(super) id: String,
    /// How its secret begins.
    pub(super) hint: String,
    pub(super) name: String,
    pub(super) user: String,
    pub(super) organization: String,
    pub(super) scopes: Vec<String>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) networks: Vec<String>,
    /// Its state in a word, and the class that colours it.
    pub(super) state: (&'static str, &'static str),
    pub(super) is_revoked: bool,
    pub(super) created: Moment,
    pub(super) created_by: String,
    pub(super) last_used: Option<Moment>,
    pub(super) expires: Option<Moment>,
    pub(super) revoked: Option<Moment>,
    pub(super) reason: String,
    pub(super) disabled: Option<Moment>,
    pub(super) rotated_from: Option<String>,
}

impl TokenView {
    pub(super) fn new(token: &Token, now: OffsetDateTime, prefix: &Prefix) -> Self {
        let moment = |time: Option<OffsetDateTime>| time.map(|time| Moment::new(time, now));
        let id = token.id.to_string();
        let soon = token.expire_time.is_some_and(|end| {
            let lifetime = end.unix_timestamp().saturating_sub(token.create_time.unix_timestamp());
            end <= now.saturating_add(SOON.min(Duration::seconds(lifetime / 4)))
        });
        let state = match token.state(now) {
            TokenState::Active if soon => ("Expires soon", "warn"),
            TokenState::Active => ("Active", "good"),
            TokenState::Disabled => ("Disabled", "warn"),
            TokenState::Expired => ("Expired", "off"),
            TokenState::Revoked => ("Revoked", "bad"),
            _ => ("Unknown", "off"),
        };
        Self {
            hint: format!("{}_{}…", prefix.as_str(), id.get(..HINT).unwrap_or(&id)),
            id,
            name: visible(token.name.as_str()),
            user: visible(token.user_id.as_str()),
            organization: visible(token.organization_id.as_str()),
            scopes: token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            labels: token.labels.iter().map(|(key, value)| (visible(key), visible(value))).collect(),
            networks: token.allowed_cidrs.iter().map(ToString::to_string).collect(),
            state,
            is_revoked: token.revoke_time.is_some(),
            created: Moment::new(token.create_time, now),
            created_by: visible(&token.created_by.to_string()),
            last_used: moment(token.last_use_time),
            expires: moment(token.expire_time),
            revoked: moment(token.revoke_time),
            reason: token.revoke_reason.as_ref().map_or_else(String::new, |reason| visible(reason.as_str())),
            disabled: moment(token.disable_time),
            rotated_from: token.rotated_from.map(|id| id.to_string()),
        }
    }

    pub(super) fn first_scopes(&self) -> &[String] {
        self.scopes.get(..SCOPES).unwrap_or(&self.scopes)
    }

    /// Returns how many scopes are not among the first.
    pub(super) fn more_scopes(&self) -> usize {
        self.scopes.len().saturating_sub(SCOPES)
    }
}

/// Returns a text with characters that hide or turn text written as codes.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_deceptive(character) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_is_shown_as_a_code_and_scripts_are_left_alone() {
        assert_eq!(visible("a\u{202e}b\r\nc\u{200b}"), "a\\u{202e}b\\u{d}\\u{a}c\\u{200b}");
        for text in ["ada", "آدا لاولیس", "👩\u{200d}🚀", "<b>&"] {
            assert_eq!(visible(text), text);
        }
    }
}
