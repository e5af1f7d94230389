//! One token.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::pages::One;
use super::view::TokenView;
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Asked, Console};
use crate::domain::{Permission, Reach};
use crate::secret::TokenId;
use crate::tokens::ActionError;

/// Shows everything about a token.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(page(&console, &asked, &id))).await
}

async fn page(console: &Console, asked: &Asked, id: &str) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    let id = TokenId::parse(id).map_err(|_| ActionError::NotFound)?;
    let (token, now) = console.integrations.context.actions.get_token(visit.caller(), id).await?;
    let caller = visit.caller();
    let page = One {
        frame: visit.frame(),
        token: TokenView::new(&token, now, &console.prefix),
        organizations: caller.reach() == Reach::Any,
        may_revoke: token.revoke_time.is_none()
            && caller.require(Permission::Write).is_ok()
            && caller.may_manage(&token).is_ok(),
    };
    console.page(&visit, StatusCode::OK, &page)
}
