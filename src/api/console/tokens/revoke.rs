//! The revocation of a token: its reason, a confirmation that has to be typed, and from when on it holds.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use tracing::{Span, field};

use super::pages::{Revoke, Revoked};
use super::view::TokenView;
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Asked, Console};
use crate::api::console::moments::{machine, to_the_millisecond};
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::root::LastRoot;
use crate::domain::{Permission, Reach, RevokeReason};
use crate::secret::TokenId;
use crate::tokens::ActionError;
use crate::tokens::revoke::{RevocationExtent, RevokeToken, Right};

/// What has to be typed: a word that every keyboard has, whatever the token is called.
const CONFIRMATION: &str = "revoke";

/// Asks whether to revoke a token.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(ask(&console, &asked, &id))).await
}

/// Revokes it. Sending the form again changes nothing.
pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(revoke(&console, &asked, &id))).await
}

async fn ask(console: &Console, asked: &Asked, id: &str) -> Result<Response, Failure> {
    let visit = console.visit(asked).await?;
    visit.caller().require(Permission::Write)?;
    let id = TokenId::parse(id).map_err(|_| ActionError::NotFound)?;
    let page = question(console, &visit, id, &Fields::read(b""), Problems::default()).await?;
    console.page(&visit, StatusCode::OK, &page)
}

/// Returns the page of the question, with what was typed.
async fn question(
    console: &Console,
    visit: &Visit,
    id: TokenId,
    fields: &Fields<'_>,
    problems: Problems,
) -> Result<Revoke, Failure> {
    let (token, now) = console.integrations.context.actions.get_token(visit.caller(), id).await?;
    Ok(Revoke {
        frame: visit.frame(),
        token: TokenView::new(&token, now, &console.prefix),
        organizations: visit.caller().reach() == Reach::Any,
        reason: fields.typed("reason"),
        only_this: !fields.get("only_this").is_empty(),
        problems,
        outcome: None,
        proof: visit.needs_proof(),
    })
}

async fn revoke(console: &Console, asked: &Asked, id: &str) -> Result<Response, Failure> {
    let mut visit = console.visit(asked).await?;
    let fields = asked.form();
    visit.check_form(&fields)?;
    visit.caller().require(Permission::Write)?;
    let id = TokenId::parse(id).map_err(|_| ActionError::NotFound)?;
    Span::current().record("token.id", field::display(id));
    let mut problems = Problems::default();
    let reason = problems.take("reason", RevokeReason::parse(&fields.typed("reason")), "The reason");
    if !fields.typed("confirmation").eq_ignore_ascii_case(CONFIRMATION) {
        problems.add("confirmation", format!("Type \u{2018}{CONFIRMATION}\u{2019} to confirm."));
    }
    let Some(reason) = reason.filter(|_| problems.is_empty()) else {
        let page = question(console, &visit, id, &fields, problems).await?;
        return console.page(&visit, StatusCode::BAD_REQUEST, &page);
    };
    if let Some(problem) = proof::missing(console, asked, &mut visit, &fields).await? {
        let page = question(console, &visit, id, &fields, Problems::one("proof", problem)).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let extent = if fields.get("only_this").is_empty() {
        RevocationExtent::Family
    } else {
        RevocationExtent::OnlyThis
    };
    let request = RevokeToken { id, right: Right::Permission, extent, reason, last_root: LastRoot::Refuse };
    let forgetting = console.integrations.context.engine.invalidate_token(id);
    let touch = |ids: &[TokenId]| forgetting.also(ids);
    match console.integrations.context.actions.revoke_token(visit.caller(), &request, &touch).await {
        Ok(revoked) => {
            let page = Revoked {
                frame: visit.frame(),
                token: TokenView::new(&revoked.token, visit.now, &console.prefix),
                organizations: visit.caller().reach() == Reach::Any,
                effective: (to_the_millisecond(revoked.effective_time), machine(revoked.effective_time)),
                now: machine(visit.now),
            };
            console.page(&visit, StatusCode::OK, &page)
        }
        Err(error @ (ActionError::LastRoot(_) | ActionError::Access(_) | ActionError::State(_))) => {
            let mut page = question(console, &visit, id, &fields, Problems::default()).await?;
            let words = of_action(&error);
            page.outcome = Some(words.text);
            let page = console.page(&visit, words.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(error.into()),
    }
}
