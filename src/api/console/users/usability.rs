//! Disabling a user with all tokens, and enabling one again.

use axum::http::StatusCode;
use axum::response::Response;

use super::pages::UsabilityForm;
use crate::api::console::commands::{Call, Lines};
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::owners::TypedOwner;
use crate::api::console::pages::visible;
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::api::console::tokens::notice::{self, Act};
use crate::api::console::tokens::subject::{failed, is_shown_in_form, opened, sent};
use crate::domain::root::LastRoot;
use crate::domain::{Permission, RevokeReason};
use crate::secret::TokenId;
use crate::tokens::ActionError;
use crate::tokens::users::{NamedUser, UserUsability};

/// Asks whether to disable a user.
pub(super) async fn ask_to_disable(
    console: &Console,
    page_request: &PageRequest,
) -> Result<Response, Failure> {
    ask(console, page_request, Act::Disabled).await
}

/// Disables it. Sending the form again changes nothing.
pub(super) async fn disable(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    set_usability(console, page_request, Act::Disabled).await
}

/// Asks whether to enable a user.
pub(super) async fn ask_to_enable(
    console: &Console,
    page_request: &PageRequest,
) -> Result<Response, Failure> {
    ask(console, page_request, Act::Enabled).await
}

/// Enables it. Sending the form again changes nothing.
pub(super) async fn enable(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    set_usability(console, page_request, Act::Enabled).await
}

async fn ask(console: &Console, page_request: &PageRequest, act: Act) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    visit.caller().require(Permission::WriteAll)?;
    let (fields, mut problems) = (page_request.query(), Problems::default());
    TypedOwner::read(&fields).parse(&mut problems);
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    console.page(&visit, status, &question(&visit, act, &fields, problems))
}

/// Returns the page of the question, with what was typed.
fn question(visit: &Visit, act: Act, fields: &Fields<'_>, problems: Problems) -> UsabilityForm {
    let (owner, reason) = (TypedOwner::read(fields), fields.typed("reason"));
    let notice = notice::read(visit, fields, &owner.subject()).filter(|(done, _)| *done == act);
    UsabilityForm {
        frame: visit.frame(),
        disables: act == Act::Disabled,
        shown: (visible(&owner.organization), visible(&owner.user)),
        lines: lines(act, &owner, &reason),
        owner,
        reason,
        problems,
        outcome: None,
        notice: notice.map(|(_, notice)| notice),
        proof: visit.needs_proof(),
    }
}

fn lines(act: Act, owner: &TypedOwner, reason: &str) -> Lines {
    let call = match act {
        Act::Disabled => Call::new(&["user", "disable"], "DisableUser").text("reason", "reason", reason),
        _ => Call::new(&["user", "enable"], "EnableUser"),
    };
    owner.said(call).lines()
}

async fn set_usability(console: &Console, page_request: &PageRequest, act: Act) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    visit.caller().require(Permission::WriteAll)?;
    let (owner, mut problems) = (TypedOwner::read(&fields), Problems::default());
    let named = owner.parse(&mut problems);
    let reason = problems.take("reason", RevokeReason::parse(&fields.typed("reason")), "The reason");
    let (Some(named), Some(reason)) = (named, reason) else {
        return console.page(&visit, StatusCode::BAD_REQUEST, &question(&visit, act, &fields, problems));
    };
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let page = question(&visit, act, &fields, Problems::one("proof", problem));
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    match changed(console, &visit, act, (&named, &reason)).await {
        Ok(changed) => {
            let path = owner.at(if act == Act::Disabled { "/users/disable" } else { "/users/enable" });
            Ok(go_to(&notice::address(&visit, &path, act, &owner.subject(), changed.effective_time)))
        }
        Err(error) if is_shown_in_form(&error) => {
            let explanation = of_action(&error);
            let mut page = question(&visit, act, &fields, Problems::default());
            page.outcome = Some(explanation.text);
            let page = console.page(&visit, explanation.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}

async fn changed(
    console: &Console,
    visit: &Visit,
    act: Act,
    (named, reason): (&NamedUser, &RevokeReason),
) -> Result<UserUsability, ActionError> {
    let context = &console.integrations.context;
    let forgetting = context.engine.begin_invalidation();
    let touch = |ids: &[TokenId]| forgetting.also(ids);
    let caller = visit.caller();
    if act == Act::Disabled {
        context.actions.disable_user(caller, named, (reason, LastRoot::Refuse), &touch).await
    } else {
        context.actions.enable_user(caller, named, &touch).await
    }
}
