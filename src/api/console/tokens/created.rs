//! The secret of a new token, until Done: the page derives it from the form's nonce and the session, however often
//! it is loaded. Done makes it unrecoverable.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use tracing::{Span, field};

use super::pages::Created;
use super::view::TokenView;
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Asked, Console, go_to};
use crate::domain::Reach;
use crate::secret::{FormNonce, TokenId};
use crate::tokens::ActionError;

/// Shows the secret, if the form with this nonce has made a token, and the person is not done with it.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(nonce): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(page(&console, &asked, &nonce))).await
}

/// Forgets the request, and goes to the list.
pub(super) async fn done(
    State(console): State<Arc<Console>>,
    Path(nonce): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(forget(&console, &asked, &nonce))).await
}

async fn page(console: &Console, asked: &Asked, nonce: &str) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    let nonce = FormNonce::parse(nonce).ok_or(ActionError::NotFound)?;
    let request_id = visit.key.request_id(&nonce);
    let found = console.integrations.context.actions.created_by_request(visit.caller(), &request_id).await?;
    let created = found.ok_or(ActionError::NotFound)?;
    Span::current().record("token.id", field::display(created.token.id));
    let page = Created {
        frame: visit.frame(),
        token: TokenView::new(&created.token, created.now, &console.prefix),
        secret: created.secret.expose_secret(),
        nonce: nonce.to_string(),
        organizations: visit.caller().reach() == Reach::Any,
    };
    console.page(&visit, StatusCode::OK, &page)
}

async fn forget(console: &Console, asked: &Asked, nonce: &str) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    let fields = asked.form();
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
