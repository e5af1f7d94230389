//! The pages of the sign-in, and the templates that lay them out.

use askama::Template;

use crate::api::console::pages::Frame;

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
#[template(path = "session/again.html")]
pub(in crate::api::console) struct Again {
    pub(in crate::api::console) frame: Frame,
    pub(in crate::api::console) address: String,
}
