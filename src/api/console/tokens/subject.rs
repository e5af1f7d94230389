//! The token that a page is about, and what every form about one token is checked for. Called by the pages of one
//! token.

use tracing::{Span, field};

use super::view::TokenView;
use crate::api::console::failure::Failure;
use crate::api::console::form::Fields;
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::session::gate::{self, SignInReason};
use crate::api::console::session::visit::Visit;
use crate::domain::{Permission, Reach, Token};
use crate::secret::TokenId;
use crate::tokens::ActionError;

/// A token on a page of its own.
pub(super) struct Subject {
    pub(super) token: TokenView,
    /// Whether organizations are shown: to those who see several.
    pub(super) organizations: bool,
    /// Whether it is the token of this session, which ends with it.
    pub(super) is_own: bool,
}

impl Subject {
    pub(super) fn new(console: &Console, visit: &Visit, token: &Token) -> Self {
        Self {
            token: TokenView::new(token, visit.now, &console.prefix),
            is_own: visit.caller().is_token(token.id),
            organizations: visit.caller().reach() == Reach::Any,
        }
    }

    /// Reads the token.
    pub(super) async fn read(
        console: &Console,
        visit: &Visit,
        id: TokenId,
    ) -> Result<(Self, Token), Failure> {
        let (token, now) = console.integrations.context.actions.get_token(visit.caller(), id).await?;
        let mut subject = Self::new(console, visit, &token);
        subject.token = TokenView::new(&token, now, &console.prefix);
        Ok((subject, token))
    }
}

/// Parses the id in a page's address.
pub(super) fn named(id: &str) -> Result<TokenId, ActionError> {
    let id = TokenId::parse(id).map_err(|_| ActionError::NotFound)?;
    Span::current().record("token.id", field::display(id));
    Ok(id)
}

/// Recognises who opens a page that leads to a change.
pub(in crate::api::console) async fn opened(
    console: &Console,
    page_request: &PageRequest,
) -> Result<Visit, Failure> {
    let visit = console.visit(page_request).await?;
    visit.caller().require(Permission::WriteOwn)?;
    Ok(visit)
}

/// Recognises who sends a form that changes something, and checks that it is the session's own.
pub(in crate::api::console) async fn sent(
    console: &Console,
    page_request: &PageRequest,
    fields: &Fields<'_>,
) -> Result<Visit, Failure> {
    let visit = console.visit(page_request).await?;
    visit.check_form(fields)?;
    visit.caller().require(Permission::WriteOwn)?;
    Ok(visit)
}

/// Returns whether an error is said on the page of its form: the person can do something about it there.
pub(in crate::api::console) fn is_shown_in_form(error: &ActionError) -> bool {
    matches!(
        error,
        ActionError::LastRoot(_)
            | ActionError::Access(_)
            | ActionError::State(_)
            | ActionError::Policy(_)
            | ActionError::Invalid(_)
            | ActionError::RequestIdReused
            | ActionError::Unrepeatable(_)
    )
}

/// Fails with an error of an action. If the session's token was ended meanwhile, asks for a sign-in.
pub(in crate::api::console) fn failed(
    console: &Console,
    page_request: &PageRequest,
    error: ActionError,
) -> Failure {
    match error {
        ActionError::Credential(error) => {
            gate::sign_in_required(console, page_request, SignInReason::Credential(error))
        }
        error => error.into(),
    }
}
