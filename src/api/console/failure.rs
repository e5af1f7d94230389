//! Why a page could not do what was asked, in people's words: what happened, and what to do. Called by every
//! page; the only file that explains errors.

use axum::http::StatusCode;
use axum::response::Response;

use super::interface::{Console, PageRequest};
use super::pages::{Frame, Message};
use crate::admission::fair_limiter::Refused;
use crate::admission::response_memory::ResponseMemoryError;
use crate::api::error::CallError;
use crate::api::http::refusal::Refusal;
use crate::domain::policy::Rule;
use crate::domain::{AccessError, Bound, CredentialError, FieldError};
use crate::store::StoreError;
use crate::tokens::{ActionError, StateError};
use crate::verify::{AuthenticateError, VerdictError};

/// Why a request fails, and the page that says so; without one, [`Console::refused`] makes it.
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    pub(super) page: Option<Box<Response>>,
}

impl<E: Into<CallError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { refusal: error.into().into(), page: None }
    }
}

impl Failure {
    /// Fails with this page.
    pub(super) fn shown(error: impl Into<CallError>, page: Response) -> Self {
        Self { refusal: error.into().into(), page: Some(Box::new(page)) }
    }
}

/// An error in words.
pub(super) struct Explanation {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) text: String,
}

impl Explanation {
    fn new(status: StatusCode, title: &'static str, text: impl Into<String>) -> Self {
        Self { status, title, text: text.into() }
    }
}

/// Fails because a form was not made for this session.
pub(super) fn foreign_form() -> Failure {
    const FOREIGN: FieldError = FieldError::Rule("is not that of this session");
    Failure { refusal: Refusal::parameter("form_token", &FOREIGN), page: None }
}

/// Fails because a template could not be filled, which does not happen with those that are compiled in.
pub(super) fn unrendered() -> Failure {
    Failure { refusal: Refusal::Overdue, page: None }
}

impl Console {
    /// Answers with the page of an error.
    pub(super) fn refused(&self, page_request: &PageRequest, refusal: &Refusal) -> Response {
        let Explanation { status, title, text } = explain(refusal);
        let page = Message { frame: Frame::new(None, String::new()), title, text };
        self.unauthenticated_page(page_request, status, &page)
    }
}

/// Explains an error.
pub(super) fn explain(refusal: &Refusal) -> Explanation {
    match refusal {
        Refusal::Call(error) => of_call(error),
        Refusal::TooLong => {
            Explanation::new(StatusCode::PAYLOAD_TOO_LARGE, "Too long", "Send a shorter form.")
        }
        Refusal::Overdue | Refusal::Denied { .. } => away(),
    }
}

fn of_call(error: &CallError) -> Explanation {
    match error {
        CallError::Access(error) => access(error),
        CallError::Action(error) => of_action(error),
        CallError::Authenticate(AuthenticateError::Credential(error)) => credential(*error),
        CallError::Authenticate(AuthenticateError::Undetermined(error)) | CallError::Undetermined(error) => {
            verdict_error(error)
        }
        CallError::Invalid(_) => Explanation::new(
            StatusCode::BAD_REQUEST,
            "This form is out of date",
            "It was made for another session, or was changed on its way, so nothing was done. Go back to the list, and \
             start again from there.",
        ),
        CallError::Refused(refused) => of_refused(*refused),
        CallError::ResponseMemory(ResponseMemoryError::OverShare) => of_refused(Refused::OverShare),
        CallError::ResponseMemory(_) => of_refused(Refused::Full),
        CallError::Watch(_) | CallError::Exchange(_) | CallError::Panicked(_) => internal(),
    }
}

/// Explains why an action failed.
pub(super) fn of_action(error: &ActionError) -> Explanation {
    match error {
        ActionError::Access(error) => access(error),
        ActionError::Credential(error) => credential(*error),
        ActionError::NotFound => Explanation::new(
            StatusCode::NOT_FOUND,
            "There is no such token",
            "It may have been deleted long after its end, or belong to another organization.",
        ),
        ActionError::PageToken(_) => Explanation::new(
            StatusCode::BAD_REQUEST,
            "This page of the list is gone",
            "Its address does not fit the filters. Go back to the list, which begins with the first page.",
        ),
        ActionError::State(error) => {
            Explanation::new(StatusCode::CONFLICT, "Nothing was changed", state(*error))
        }
        ActionError::LastRoot(_) => Explanation::new(
            StatusCode::CONFLICT,
            "This is the last root token",
            "Nothing was changed: without it nobody could manage this installation. Create another token with \
             tokend:root that does not expire within a day, then try again.",
        ),
        ActionError::Policy(rule) => {
            Explanation::new(StatusCode::CONFLICT, "The policy forbids it", policy(*rule))
        }
        ActionError::NoSuchPlan(plan) => Explanation::new(
            StatusCode::CONFLICT,
            "There is no such plan",
            format!("The organization has no plan {}. It may have been deleted.", plan.as_str()),
        ),
        ActionError::RequestIdReused => Explanation::new(
            StatusCode::CONFLICT,
            "This form has made its token already",
            "Open a new form for another one.",
        ),
        ActionError::Unrepeatable(_) => Explanation::new(
            StatusCode::GONE,
            "The secret is not shown again",
            "This form has made its token. If you do not have its secret, revoke it and create another one.",
        ),
        ActionError::Refused(refused) => of_refused(*refused),
        ActionError::Overloaded(_) => of_refused(Refused::Full),
        ActionError::Store(error) => store(error),
        // The console neither shows nor deletes plans.
        ActionError::PlanNotFound
        | ActionError::PlanInUse(_)
        | ActionError::PlanIsDefault
        | ActionError::Invalid(_)
        | ActionError::Minting(_)
        | ActionError::NoLink(_) => internal(),
    }
}

fn of_refused(refused: Refused) -> Explanation {
    match refused {
        Refused::Full => Explanation::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "tokend is busy",
            "Nothing was changed. Try again in a moment: that is safe.",
        ),
        Refused::OverShare => Explanation::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too much at once",
            "Too many requests of yours are waiting already. Try again in a moment: that is safe.",
        ),
    }
}

fn verdict_error(error: &VerdictError) -> Explanation {
    match error {
        VerdictError::Store(error) => store(error),
        VerdictError::Shared(error) => store(error),
        VerdictError::Refused(refused) => of_refused(*refused),
        VerdictError::Overloaded(_) => of_refused(Refused::Full),
        // The console names no limit.
        VerdictError::DurableHash(_) | VerdictError::NoSuchLimit => internal(),
    }
}

fn store(error: &StoreError) -> Explanation {
    match error {
        StoreError::Refused(_) | StoreError::Corrupt { .. } | StoreError::BeforeCommit(_) => internal(),
        StoreError::Starting
        | StoreError::Unavailable(_)
        | StoreError::DeadlineExceeded
        | StoreError::OtherServer
        | StoreError::Clock
        | StoreError::Unconfirmed => away(),
    }
}

fn away() -> Explanation {
    Explanation::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "The database does not answer",
        "Try again when it is back. That is safe: what was done already is not done twice, and a token that was made \
         meanwhile is the one that you get.",
    )
}

fn internal() -> Explanation {
    Explanation::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Something is wrong inside tokend",
        "Its log says more. Trying again is safe, but may not help.",
    )
}

/// Explains what the session's token lacks.
pub(super) fn access(error: &AccessError) -> Explanation {
    let text = match error {
        AccessError::MissingScope(scope) => format!(
            "The token that you are signed in with lacks the scope {}. Sign in with one that has it.",
            scope.word()
        ),
        AccessError::Privileged(scope) => format!(
            "A token with {0} can be issued, changed and revoked only by one that has {0} itself, and yours does not.",
            scope.word()
        ),
        AccessError::ForeignOrganization => {
            "Your token is of another organization. Leave the organization empty, or \
                                             sign in with a token that has tokend:root."
                .to_owned()
        }
        AccessError::OutlivesCaller => {
            "A token with a tokend: scope may not expire later than the token that you are \
                                        signed in with."
                .to_owned()
        }
        AccessError::WiderNetworks => {
            "A token with a tokend: scope may not be used from more networks than the token \
                                       that you are signed in with."
                .to_owned()
        }
        AccessError::Exceeds(bound) => exceeded(*bound).to_owned(),
    };
    Explanation::new(StatusCode::FORBIDDEN, "Your token does not allow this", text)
}

/// Explains what of a token is more than the session's token may issue.
fn exceeded(bound: Bound) -> &'static str {
    match bound {
        Bound::Scopes => "Your token may not issue tokens with one of these scopes. Remove it.",
        Bound::User => "Your token does not allow you to act for this user.",
        Bound::Lifetime => {
            "Your token may not issue a token that lives as long. Choose an earlier expiration."
        }
        Bound::Networks => {
            "Your token may not issue a token that is usable from these networks. Choose narrower ones."
        }
        Bound::Grant => "The token may issue more than yours may.",
        Bound::Plan => "Your token may not issue a token with this plan, or without one.",
    }
}

/// Explains a rule of a policy.
pub(super) fn policy(rule: Rule) -> String {
    let text = match rule {
        Rule::ExpirationRequired => "The organization's policy requires an expiration. Choose one.",
        Rule::LongestLifetime => {
            "This is longer than the organization's policy allows. Choose an earlier expiration."
        }
        Rule::LongestGrace => {
            "The organization's policy does not allow the old secret to live that long. Choose a shorter time."
        }
        Rule::MostActiveTokens => {
            "This user has as many tokens as the organization's policy allows. Revoke one of them first."
        }
        Rule::AllowedScopes => "The organization's policy does not allow one of these scopes. Remove it.",
        Rule::PlanRequired => {
            "The organization's policy requires a plan, which only the command line and the API set."
        }
        _ => "The organization's policy forbids it.",
    };
    text.to_owned()
}

/// Explains why a credential is not accepted.
pub(super) fn credential(error: CredentialError) -> Explanation {
    let text = match error {
        CredentialError::Missing => "Paste a secret.",
        CredentialError::Malformed => {
            "This is not the text of a secret. Paste all of it, as it was shown when the token was created."
        }
        CredentialError::Invalid => "No token has this secret. Check that it is from this installation.",
        CredentialError::Expired => "This token has expired. Sign in with another one.",
        CredentialError::Revoked => "This token is revoked. Sign in with another one.",
        CredentialError::Disabled => "This token is disabled. Sign in with another one, or have it enabled.",
        CredentialError::IpNotAllowed => "This token may not be used from your address.",
        CredentialError::PortalOver => "Open this page once more from the application that sent you here.",
    };
    Explanation::new(StatusCode::UNAUTHORIZED, "You are not signed in", text)
}

fn state(error: StateError) -> &'static str {
    match error {
        StateError::Revoked => "The token is revoked, which is never undone.",
        StateError::Expired => "The token has expired.",
        StateError::Disabled => "The token is disabled. Enable it first.",
        StateError::UserDisabled => {
            "The user is disabled, so no token is created for them. Enable the user first."
        }
        StateError::Rotated(_) => "The token was rotated already.",
    }
}
