//! The pages of users: what each shows, and the templates that lay it out.

use askama::Template;

use super::query::UserQuery;
use crate::api::console::commands::Lines;
use crate::api::console::form::Problems;
use crate::api::console::moments::Moment;
use crate::api::console::owners::TypedOwner;
use crate::api::console::pages::Frame;
use crate::api::console::tokens::notice::Notice;

/// The list of users.
#[derive(Template)]
#[template(path = "users/list.html")]
pub(super) struct List {
    pub(super) frame: Frame,
    pub(super) query: UserQuery,
    pub(super) lines: Lines,
    pub(super) problems: Problems,
    /// Whether organizations are shown: to those who see several.
    pub(super) organizations: bool,
    pub(super) users: Vec<UserView>,
    /// The address of the next page.
    pub(super) next: Option<String>,
}

/// A user as it is shown.
pub(super) struct UserView {
    pub(super) user: String,
    pub(super) organization: String,
    pub(super) is_service: bool,
    pub(super) active: u64,
    pub(super) tokens: u64,
    pub(super) last_used: Option<Moment>,
    /// Since when it is disabled, and why.
    pub(super) disabled: Option<(Moment, String)>,
    /// The address of its tokens.
    pub(super) list: String,
    /// Where it is disabled, or enabled again; `None`: the caller may not do so.
    pub(super) switch: Option<String>,
}

/// The question before a user is disabled or enabled, and what was done.
#[derive(Template)]
#[template(path = "users/usability.html")]
pub(super) struct UsabilityForm {
    pub(super) frame: Frame,
    pub(super) disables: bool,
    pub(super) owner: TypedOwner,
    /// The organization and the user for people.
    pub(super) shown: (String, String),
    pub(super) reason: String,
    pub(super) problems: Problems,
    /// Why nothing was changed.
    pub(super) outcome: Option<String>,
    pub(super) notice: Option<Notice>,
    pub(super) lines: Lines,
    pub(super) proof: bool,
}
