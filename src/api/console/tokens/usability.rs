//! Disabling a token for a while, and enabling it again.

use axum::http::StatusCode;
use axum::response::Response;

use super::notice::{self, Act};
use super::pages::UsabilityForm;
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
use crate::tokens::disable::Usability;

/// What the page for disabling does.
pub(super) const OFF: Usability = Usability::Disabled(LastRoot::Refuse);
/// What the page for enabling does.
pub(super) const ON: Usability = Usability::Enabled;

/// Asks whether to disable a token.
pub(super) async fn ask(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
    usability: Usability,
) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    let page = question(console, &visit, (named(id)?, usability), &page_request.query(), Problems::default())
        .await?;
    console.page(&visit, StatusCode::OK, &page)
}

async fn question(
    console: &Console,
    visit: &Visit,
    (id, usability): (TokenId, Usability),
    fields: &Fields<'_>,
    problems: Problems,
) -> Result<UsabilityForm, Failure> {
    let (subject, _) = Subject::read(console, visit, id).await?;
    let reason = fields.typed("reason");
    Ok(UsabilityForm {
        frame: visit.frame(),
        subject,
        disables: usability != Usability::Enabled,
        lines: lines(id, usability, &reason),
        reason,
        problems,
        outcome: None,
        proof: visit.needs_proof(),
    })
}

fn lines(id: TokenId, usability: Usability, reason: &str) -> Lines {
    let call = match usability {
        Usability::Disabled(_) => {
            Call::new(&["token", "disable"], "DisableToken").text("reason", "reason", reason)
        }
        Usability::Enabled => Call::new(&["token", "enable"], "EnableToken"),
    };
    call.about("tokenId", &id.to_string()).lines()
}

/// Disables it. Sending the form again changes nothing.
pub(super) async fn act(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
    usability: Usability,
) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let about = (named(id)?, usability);
    let mut problems = Problems::default();
    let reason = problems.take("reason", RevokeReason::parse(&fields.typed("reason")), "The reason");
    let Some(reason) = reason else {
        let page = question(console, &visit, about, &fields, problems).await?;
        return console.page(&visit, StatusCode::BAD_REQUEST, &page);
    };
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let page = question(console, &visit, about, &fields, Problems::one("proof", problem)).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let context = &console.integrations.context;
    let forgetting = context.engine.invalidate_token(about.0);
    let changed = context.actions.set_usability(visit.caller(), about.0, usability, &reason).await;
    drop(forgetting);
    match changed {
        Ok(changed) => {
            let act = if usability == Usability::Enabled { Act::Enabled } else { Act::Disabled };
            let (path, id) = (format!("/tokens/{}", about.0), about.0.to_string());
            Ok(go_to(&notice::address(&visit, &path, act, &id, changed.effective_time)))
        }
        Err(error) if is_shown_in_form(&error) => {
            let mut page = question(console, &visit, about, &fields, Problems::default()).await?;
            let explanation = of_action(&error);
            page.outcome = Some(explanation.text);
            let page = console.page(&visit, explanation.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}
