//! The page of the usage: what it shows, and the template that lays it out.

use askama::Template;

use super::chart::Chart;
use crate::api::console::commands::Lines;
use crate::api::console::form::Problems;
use crate::api::console::moments::Moment;
use crate::api::console::pages::Frame;

/// How many tokens are named of each kind.
pub(super) const NAMED: u32 = 10;

/// The usage of an organization, or of the session's own user.
#[derive(Template)]
#[template(path = "usage/overview.html")]
pub(super) struct Overview {
    pub(super) frame: Frame,
    /// The organization that was typed.
    pub(super) organization: String,
    /// Whether organizations are shown: to those who see several.
    pub(super) organizations: bool,
    /// Whether it is about the session's own user alone.
    pub(super) own: bool,
    pub(super) problems: Problems,
    /// `None`: the filters are not valid.
    pub(super) chart: Option<Chart>,
    /// The refusals by verdict.
    pub(super) refusals: Vec<(&'static str, u64)>,
    pub(super) top: Vec<TopToken>,
    /// Whether there are too many counts to say which tokens were verified most.
    pub(super) too_many: bool,
    /// `None`: the filters are not valid.
    pub(super) needs_look: Option<NeedsLook>,
    pub(super) lines: Lines,
}

/// A token with its counts.
pub(super) struct TopToken {
    pub(super) id: String,
    /// Its name and user; `None`: it was deleted.
    pub(super) named: Option<(String, String)>,
    pub(super) valid: u64,
    pub(super) refused: u64,
}

/// Some of the tokens that need a look, and where all of them are listed.
pub(super) struct Named {
    pub(super) tokens: Vec<NamedToken>,
    /// The address of the list.
    pub(super) list: String,
    /// Whether there may be more.
    pub(super) more: bool,
}

/// A token that needs a look.
pub(super) struct NamedToken {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) user: String,
    pub(super) at: Moment,
    /// What happened then, if the section does not say it.
    pub(super) why: String,
}

/// The tokens that need a look.
pub(super) struct NeedsLook {
    pub(super) expiring: Named,
    pub(super) refused: Named,
    pub(super) unused: Named,
}
