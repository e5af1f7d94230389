//! The pages of tokens: what each shows, and the templates that lay it out. Filled by the other files here.

use askama::Template;

use super::list_query::ListQuery;
use super::new_form::NewForm;
use super::view::TokenView;
use crate::api::console::form::Problems;
use crate::api::console::moments::Moment;
use crate::api::console::pages::Frame;

/// The list of tokens.
#[derive(Template)]
#[template(path = "tokens/list.html")]
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
#[template(path = "tokens/new.html")]
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
#[template(path = "tokens/created.html")]
pub(super) struct Created<'a> {
    pub(super) frame: Frame,
    pub(super) token: TokenView,
    pub(super) secret: &'a str,
    pub(super) nonce: String,
    pub(super) organizations: bool,
}

/// One token.
#[derive(Template)]
#[template(path = "tokens/token.html")]
pub(super) struct One {
    pub(super) frame: Frame,
    pub(super) token: TokenView,
    pub(super) organizations: bool,
    pub(super) may_revoke: bool,
}

/// The question before a revocation.
#[derive(Template)]
#[template(path = "tokens/revoke.html")]
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
#[template(path = "tokens/revoked.html")]
pub(super) struct Revoked {
    pub(super) frame: Frame,
    pub(super) token: TokenView,
    pub(super) organizations: bool,
    /// From when on it is refused everywhere: for people, and for machines.
    pub(super) effective: (String, String),
    /// The server's time, by which the page counts down.
    pub(super) now: String,
}
