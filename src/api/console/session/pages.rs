//! The pages of sessions, and the templates that lay them out.

use askama::Template;

use crate::api::console::commands::Lines;
use crate::api::console::form::Problems;
use crate::api::console::moments::Moment;
use crate::api::console::pages::{Frame, SignedIn};

/// The first page.
#[derive(Template)]
#[template(path = "session/sign_in.html")]
pub(in crate::api::console) struct SignIn {
    pub(in crate::api::console) frame: Frame,
    pub(in crate::api::console) notice: Option<&'static str>,
    pub(in crate::api::console) problem: Option<String>,
    /// The page to go to afterwards.
    pub(in crate::api::console) next: String,
}

/// Loads the page once more, from itself: the first request, by a link on another site, has no cookie.
#[derive(Template)]
#[template(path = "session/reload.html")]
pub(in crate::api::console) struct Reload {
    pub(in crate::api::console) frame: Frame,
    pub(in crate::api::console) address: String,
}

/// Takes the code of a link.
#[derive(Template)]
#[template(path = "session/link.html")]
pub(super) struct Link {
    pub(super) frame: Frame,
    pub(super) problem: Option<String>,
}

/// Asks whether to sign in as somebody.
#[derive(Template)]
#[template(path = "session/confirm.html")]
pub(super) struct Confirm<'a> {
    pub(super) frame: Frame,
    pub(super) signed_in: SignedIn,
    pub(super) code: &'a str,
    /// Whether the browser has a session, which then ends.
    pub(super) replaces: bool,
}

/// Takes the code of a link to a portal session.
#[derive(Template)]
#[template(path = "session/portal.html")]
pub(super) struct Portal {
    pub(super) frame: Frame,
    pub(super) notice: Option<&'static str>,
    pub(super) problem: Option<String>,
}

/// Asks whether to open a portal session.
#[derive(Template)]
#[template(path = "session/portal_open.html")]
pub(super) struct PortalOpen<'a> {
    pub(super) frame: Frame,
    pub(super) user: String,
    pub(super) code: &'a str,
    pub(super) end: Moment,
    /// Whether the browser has a session, which then ends.
    pub(super) replaces: bool,
}

/// The sessions of a token.
#[derive(Template)]
#[template(path = "session/sessions.html")]
pub(super) struct Sessions {
    pub(super) frame: Frame,
    pub(super) shown: Vec<SessionView>,
    /// How many there are beside these.
    pub(super) more: usize,
    /// The id, the name and the user of the token, if it is not the one that the person is signed in with.
    pub(super) of: Option<(String, String, String)>,
    pub(super) problems: Problems,
    pub(super) lines: Lines,
    /// Whether the secret is asked for once more.
    pub(super) proof: bool,
}

/// A session as it is shown.
pub(super) struct SessionView {
    pub(super) id: String,
    pub(super) is_this: bool,
    pub(super) since: Moment,
    pub(super) last_use: Moment,
    pub(super) address: String,
    pub(super) by_link: bool,
}

/// Asks whether a program may have a token that acts for the person.
#[derive(Template)]
#[template(path = "session/login.html")]
pub(super) struct Login {
    pub(super) frame: Frame,
    pub(super) host: String,
    pub(super) user: String,
    pub(super) end: Moment,
    /// The scopes of tokens that it may issue.
    pub(super) issues: Vec<String>,
    /// How long the tokens that it issues last; `None`: as long as itself.
    pub(super) longest: Option<String>,
    /// What the form sends again.
    pub(super) asked: Vec<(&'static str, String)>,
    pub(super) port: String,
    pub(super) state: String,
    /// Whether the person types the code.
    pub(super) typed: bool,
    /// Where a person goes who does not allow it.
    pub(super) cancel: String,
    pub(super) problems: Problems,
    pub(super) proof: bool,
}

/// Gives the code to the program, or to the person.
#[derive(Template)]
#[template(path = "session/allowed.html")]
pub(super) struct Allowed<'a> {
    pub(super) frame: Frame,
    pub(super) host: String,
    /// The program's own address; `None`: the person types the code.
    pub(super) callback: Option<String>,
    pub(super) code: &'a str,
}

/// Says that an address is not one that a program has made.
#[derive(Template)]
#[template(path = "session/not_a_login.html")]
pub(super) struct InvalidLogin {
    pub(super) frame: Frame,
}
