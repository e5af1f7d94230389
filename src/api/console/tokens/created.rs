//! The secret of a new token, until Done: the page derives it from the form's nonce and the session, however often
//! it is loaded. Done makes it unrecoverable.

use axum::http::StatusCode;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use tracing::{Span, field};

use super::notice;
use super::pages::Created;
use super::subject::Subject;
use super::view::TokenView;
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::session::visit::Visit;
use crate::secret::{FormNonce, TokenId};
use crate::tokens::ActionError;

/// Shows the secret, if the form with this nonce has made a token, and the person is not done with it.
pub(super) async fn page(
    console: &Console,
    page_request: &PageRequest,
    nonce: &str,
) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let nonce = FormNonce::parse(nonce).ok_or(ActionError::NotFound)?;
    let request_id = visit.key.request_id(&nonce);
    let found = console.integrations.context.actions.created_by_request(visit.caller(), &request_id).await?;
    let created = found.ok_or(ActionError::NotFound)?;
    Span::current().record("token.id", field::display(created.token.id));
    let page = Created {
        frame: visit.frame(),
        subject: Subject::new(console, &visit, &created.token),
        secret: created.secret.expose_secret(),
        old: replaced(console, &visit, created.token.rotated_from).await,
        notice: notice::read(&visit, &page_request.query(), &nonce.to_string()).map(|(_, notice)| notice),
        nonce: nonce.to_string(),
    };
    console.page(&visit, StatusCode::OK, &page)
}

/// Reads the token that a new one replaces; `None`: there is none, or it cannot be read, which must not keep back the
/// secret.
async fn replaced(console: &Console, visit: &Visit, id: Option<TokenId>) -> Option<TokenView> {
    let (token, now) = console.integrations.context.actions.get_token(visit.caller(), id?).await.ok()?;
    Some(TokenView::new(&token, now, &console.prefix))
}

/// Forgets the request, and goes to the list.
pub(super) async fn forget(
    console: &Console,
    page_request: &PageRequest,
    nonce: &str,
) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let fields = page_request.form();
    visit.check_form(&fields)?;
    let nonce = FormNonce::parse(nonce).ok_or(ActionError::NotFound)?;
    console
        .integrations
        .context
        .actions
        .forget_request(visit.caller(), &visit.key.request_id(&nonce))
        .await?;
    // The list marks it.
    let made = TokenId::parse(fields.get("token")).map(|id| format!("#t-{id}"));
    Ok(go_to(&format!("/tokens{}", made.unwrap_or_default())))
}
