//! The pages of tokens: what each shows, and the templates that lay it out. Filled by the other files here.

use askama::Template;

use super::edit_form::EditForm;
use super::expiration::{ExpirationChoice, ExpirationOptions};
use super::history::EventView;
use super::list_query::ListQuery;
use super::new_form::NewForm;
use super::notice::Notice;
use super::subject::Subject;
use super::terms::Count;
use super::view::TokenView;
use crate::api::console::commands::Lines;
use crate::api::console::form::Problems;
use crate::api::console::moments::Moment;
use crate::api::console::owners::TypedOwner;
use crate::api::console::pages::Frame;
use crate::api::console::usage::chart::Chart;

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
    /// Whether only the tokens of the session's own user are seen.
    pub(super) own: bool,
    pub(super) tokens: Vec<TokenView>,
    /// The address of the next page.
    pub(super) next: Option<String>,
    /// Where all tokens of the user are revoked, if the list is that of one user.
    pub(super) user_end: Option<String>,
}

/// The form for a new token.
#[derive(Template)]
#[template(path = "tokens/new.html")]
#[expect(clippy::struct_excessive_bools, reason = "each is a condition of the page")]
pub(super) struct New {
    pub(super) frame: Frame,
    pub(super) form: NewForm,
    pub(super) expiration_choice: ExpirationChoice,
    pub(super) problems: Problems,
    /// What happened to the form as a whole, and whether its token exists already.
    pub(super) outcome: Option<(String, bool)>,
    pub(super) organizations: bool,
    pub(super) expiration_options: ExpirationOptions,
    /// Whether the user is the session's own, which cannot be changed.
    pub(super) own: bool,
    /// Whether the kind of owner is the session's own, which cannot be changed.
    pub(super) kind: bool,
    /// Whether it may issue others in turn.
    pub(super) grants: bool,
    /// The scopes that the policy and the session's token allow; empty: any, or none if they are limited.
    pub(super) allowed: Vec<String>,
    /// Whether the session's token limits the scopes.
    pub(super) limited: bool,
    /// Whether other scopes can be typed.
    pub(super) patterns: bool,
    pub(super) count: Option<Count>,
    pub(super) privileges: Vec<(&'static str, &'static str)>,
    pub(super) lines: Lines,
    /// Whether the secret is asked for once more.
    pub(super) proof: bool,
}

/// A new token, with its secret.
#[derive(Template)]
#[template(path = "tokens/created.html")]
pub(super) struct Created<'a> {
    pub(super) frame: Frame,
    pub(super) subject: Subject,
    pub(super) secret: &'a str,
    pub(super) nonce: String,
    /// The token that it replaces, if that can be read.
    pub(super) old: Option<TokenView>,
    pub(super) notice: Option<Notice>,
}

/// What can be done with a token.
#[expect(clippy::struct_excessive_bools, reason = "each is an act")]
pub(super) struct Acts {
    pub(super) edit: bool,
    pub(super) rotate: bool,
    pub(super) disable: bool,
    pub(super) enable: bool,
    pub(super) revoke: bool,
    /// Where its user is disabled, or enabled again, and whether that disables.
    pub(super) user: Option<(String, bool)>,
    /// Where a form is for one like it.
    pub(super) like: Option<String>,
}

/// A part of a token's family.
pub(super) struct Family {
    /// Its members, oldest first.
    pub(super) members: Vec<TokenView>,
    /// Which of them is the token of the page.
    pub(super) place: usize,
    /// What is before and after this part.
    pub(super) earlier: Option<FamilyEnd>,
    pub(super) later: Option<FamilyEnd>,
}

/// The next member before or after a part of a family.
pub(super) struct FamilyEnd {
    pub(super) id: String,
    pub(super) is_deleted: bool,
}

/// One token.
#[derive(Template)]
#[template(path = "tokens/token.html")]
pub(super) struct One {
    pub(super) frame: Frame,
    pub(super) subject: Subject,
    pub(super) notice: Option<Notice>,
    pub(super) acts: Acts,
    /// Its family; `None`: it is alone.
    pub(super) family: Option<Family>,
    pub(super) events: Vec<EventView>,
    /// Why it is disabled, as the audit log has it.
    pub(super) disable_reason: String,
    /// Its verifications of the last 30 days.
    pub(super) chart: Chart,
    /// Whether the sessions of this token can be shown.
    pub(super) sessions: bool,
    /// The address of its older events.
    pub(super) older: Option<String>,
    /// Whether these are not the newest.
    pub(super) is_older: bool,
}

/// The question before a revocation.
#[derive(Template)]
#[template(path = "tokens/revoke.html")]
pub(super) struct Revoke {
    pub(super) frame: Frame,
    pub(super) subject: Subject,
    pub(super) reason: String,
    pub(super) only_this: bool,
    pub(super) problems: Problems,
    /// Why it was not revoked.
    pub(super) outcome: Option<String>,
    pub(super) lines: Lines,
    pub(super) proof: bool,
}

/// The question before a token is disabled or enabled.
#[derive(Template)]
#[template(path = "tokens/usability.html")]
pub(super) struct UsabilityForm {
    pub(super) frame: Frame,
    pub(super) subject: Subject,
    pub(super) disables: bool,
    pub(super) reason: String,
    pub(super) problems: Problems,
    pub(super) outcome: Option<String>,
    pub(super) lines: Lines,
    pub(super) proof: bool,
}

/// The form for a rotation.
#[derive(Template)]
#[template(path = "tokens/rotate.html")]
pub(super) struct Rotate {
    pub(super) frame: Frame,
    pub(super) subject: Subject,
    pub(super) nonce: String,
    /// The graces to choose from: in the form, in words, when the old token ends.
    pub(super) graces: Vec<(&'static str, &'static str, Moment)>,
    pub(super) grace: String,
    /// What the policy says of graces.
    pub(super) grace_rule: Option<String>,
    /// Whether it is the token of this session, whose successor expires when it would have.
    pub(super) is_own: bool,
    pub(super) expiration_choice: ExpirationChoice,
    pub(super) expiration_options: ExpirationOptions,
    pub(super) problems: Problems,
    pub(super) outcome: Option<(String, bool)>,
    pub(super) lines: Lines,
    pub(super) proof: bool,
}

/// The form for a change.
#[derive(Template)]
#[template(path = "tokens/edit.html")]
pub(super) struct Edit {
    pub(super) frame: Frame,
    pub(super) subject: Subject,
    pub(super) form: EditForm,
    pub(super) expiration_choice: ExpirationChoice,
    pub(super) expiration_options: ExpirationOptions,
    /// The scopes that the policy allows; empty: any.
    pub(super) allowed: Vec<String>,
    /// Whether what it may issue is shown.
    pub(super) grants: bool,
    pub(super) problems: Problems,
    pub(super) outcome: Option<String>,
    pub(super) lines: Lines,
    pub(super) proof: bool,
}

/// The question before something is done with several tokens.
#[derive(Template)]
#[template(path = "tokens/chosen.html")]
pub(super) struct Chosen {
    pub(super) frame: Frame,
    pub(super) revokes: bool,
    pub(super) tokens: Vec<TokenView>,
    /// How many of those that were chosen do not exist, or are out of reach.
    pub(super) missing: usize,
    pub(super) reason: String,
    pub(super) problems: Problems,
    pub(super) lines: Lines,
    pub(super) proof: bool,
}

/// What happened to one of the tokens.
pub(super) struct Outcome {
    pub(super) id: String,
    /// Its name, if it can be read.
    pub(super) name: Option<String>,
    pub(super) is_done: bool,
    pub(super) text: &'static str,
}

/// What was done with several tokens.
#[derive(Template)]
#[template(path = "tokens/done.html")]
pub(super) struct Done {
    pub(super) frame: Frame,
    pub(super) revokes: bool,
    pub(super) notice: Option<Notice>,
    pub(super) outcomes: Vec<Outcome>,
    /// How many failed.
    pub(super) failed: usize,
    /// Where to try those again.
    pub(super) again: String,
}

/// The question before all tokens of a user are revoked, and what came of it.
#[derive(Template)]
#[template(path = "tokens/user.html")]
pub(super) struct UserRevocation {
    pub(super) frame: Frame,
    pub(super) owner: TypedOwner,
    /// The organization and the user for people.
    pub(super) shown: (String, String),
    pub(super) tokens: Vec<TokenView>,
    /// Whether there are more than these.
    pub(super) more: bool,
    pub(super) reason: String,
    pub(super) problems: Problems,
    pub(super) outcome: Option<String>,
    pub(super) notice: Option<Notice>,
    pub(super) lines: Lines,
    pub(super) proof: bool,
}
