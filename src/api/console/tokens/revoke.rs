//! The revocation of a token: its reason, and a confirmation that has to be typed.

use axum::http::StatusCode;
use axum::response::Response;

use super::notice::{self, Act};
use super::pages::Revoke;
use super::subject::{Subject, failed, is_shown_in_form, named, opened, sent};
use crate::api::console::commands::{Call, Lines};
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::RevokeReason;
use crate::domain::root::LastRoot;
use crate::secret::TokenId;
use crate::tokens::revoke::{RevocationExtent, RevokeToken, Right};

/// What has to be typed: a word that every keyboard has, whatever the token is called.
const CONFIRMATION: &str = "revoke";

/// Asks whether to revoke a token.
pub(super) async fn ask(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    let page = question(console, &visit, named(id)?, &page_request.query(), Problems::default()).await?;
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
    let (subject, _) = Subject::read(console, visit, id).await?;
    let (reason, only_this) = (fields.typed("reason"), !fields.get("only_this").is_empty());
    Ok(Revoke {
        frame: visit.frame(),
        subject,
        lines: lines(id, &reason, only_this),
        reason,
        only_this,
        problems,
        outcome: None,
        proof: visit.needs_proof(),
    })
}

fn lines(id: TokenId, reason: &str, only_this: bool) -> Lines {
    let call = Call::new(&["token", "revoke"], "RevokeToken").text("reason", "reason", reason);
    let call = if only_this { call.flag("only-this", None).set("onlyThis", true.into()) } else { call };
    call.about("tokenId", &id.to_string()).lines()
}

/// Reads the reason of a revocation or of disabling, and the confirmation of a revocation; `None`: one of them is missing or not valid.
pub(super) fn confirmed(fields: &Fields<'_>, act: Act, problems: &mut Problems) -> Option<RevokeReason> {
    let reason = problems.take("reason", RevokeReason::parse(&fields.typed("reason")), "The reason");
    // What can be undone needs no confirmation beside the button.
    if act == Act::Revoked && !fields.typed("confirmation").eq_ignore_ascii_case(CONFIRMATION) {
        problems.add("confirmation", format!("Type \u{2018}{CONFIRMATION}\u{2019} to confirm."));
    }
    reason.filter(|_| problems.is_empty())
}

/// Revokes it. Sending the form again changes nothing.
pub(super) async fn revoke(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let id = named(id)?;
    let mut problems = Problems::default();
    let Some(reason) = confirmed(&fields, Act::Revoked, &mut problems) else {
        let page = question(console, &visit, id, &fields, problems).await?;
        return console.page(&visit, StatusCode::BAD_REQUEST, &page);
    };
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
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
            let (path, id) = (format!("/tokens/{id}"), id.to_string());
            Ok(go_to(&notice::address(&visit, &path, Act::Revoked, &id, revoked.effective_time)))
        }
        Err(error) if is_shown_in_form(&error) => {
            let mut page = question(console, &visit, id, &fields, Problems::default()).await?;
            let explanation = of_action(&error);
            page.outcome = Some(explanation.text);
            let page = console.page(&visit, explanation.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}
