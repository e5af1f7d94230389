//! What is the same on all pages, and how text is shown on them. Every text is escaped where it is written, and
//! characters that hide or turn text are shown as codes. Called by the other files of the console.

use std::fmt::Write as _;

use askama::Template;

use super::assets::ASSETS;
use crate::domain::text::is_deceptive;

/// The person who is signed in, as pages show it.
#[derive(Debug, Clone, Default)]
pub(super) struct SignedIn {
    pub(super) name: String,
    pub(super) user: String,
    /// Whether the session is about the tokens of this user alone.
    pub(super) own: bool,
    /// Whether it is a portal session.
    pub(super) portal: bool,
}

impl SignedIn {
    pub(super) fn new(name: &str, user: &str) -> Self {
        Self { name: visible(name), user: visible(user), own: false, portal: false }
    }
}

/// What is the same on all pages.
pub(super) struct Frame {
    pub(super) signed_in: Option<SignedIn>,
    pub(super) form_token: String,
    /// The names of the assets.
    pub(super) style: &'static str,
    pub(super) script: &'static str,
    pub(super) icon: &'static str,
}

impl Frame {
    /// Returns whether the page is one of a portal session.
    pub(super) fn is_portal(&self) -> bool {
        self.signed_in.as_ref().is_some_and(|signed_in| signed_in.portal)
    }

    pub(super) fn new(signed_in: Option<SignedIn>, form_token: String) -> Self {
        let assets = &*ASSETS;
        Self {
            signed_in,
            form_token,
            style: &assets.style.name,
            script: &assets.script.name,
            icon: &assets.icon.name,
        }
    }
}

/// An error, or a short message.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message {
    pub(super) frame: Frame,
    pub(super) title: &'static str,
    pub(super) text: String,
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

/// Returns the first characters of a text as it is shown.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let mut shown = visible(&text.chars().take(most).collect::<String>());
    if text.chars().nth(most).is_some() {
        shown.push('…');
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
