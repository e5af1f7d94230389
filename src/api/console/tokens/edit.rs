//! The change of a token: its name, scopes, labels, networks, expiration and grant.

use axum::http::StatusCode;
use axum::response::Response;

use super::edit_form::EditForm;
use super::expiration::ExpirationChoice;
use super::notice::{self, Act};
use super::pages::Edit;
use super::subject::{Subject, failed, is_shown_in_form, named, opened, sent};
use super::terms::Terms;
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::Token;
use crate::domain::policy::Policy;

/// What the person is asked to do whose form would undo somebody else's change.
const STALE: &str = "Somebody else changed this token since the form was opened. What you changed stays as you typed it, \
                     and the rest is as the token has it now. Look at it, and save again.";

/// Shows the form.
pub(super) async fn ask(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    let read = Subject::read(console, &visit, named(id)?).await?;
    let form = EditForm::of(&read.1);
    let page = page(console, &visit, read, (form, ExpirationChoice::kept()), Problems::default()).await?;
    console.page(&visit, StatusCode::OK, &page)
}

async fn page(
    console: &Console,
    visit: &Visit,
    (subject, token): (Subject, Token),
    (form, expiration_choice): (EditForm, ExpirationChoice),
    problems: Problems,
) -> Result<Edit, Failure> {
    let owner = (token.organization_id.as_str(), token.user_id.as_str(), token.owner_kind);
    let terms = Terms::read(console, visit, owner).await?;
    let terms = if Policy::binds(&token) { terms } else { terms.unbound() };
    let as_it_is = match &subject.token.expires {
        Some(end) => format!("As it is: {}", end.exact),
        None => "As it is: never".to_owned(),
    };
    Ok(Edit {
        frame: visit.frame(),
        subject,
        expiration_options: terms.expiration_options_of(token.create_time, visit.now).or_keep(as_it_is),
        allowed: terms.scopes(),
        grants: super::new::grants(visit.caller()) || form.grant.is_begun(),
        lines: form.lines(&token, &expiration_choice),
        form,
        expiration_choice,
        problems,
        outcome: None,
        proof: visit.needs_proof(),
    })
}

/// Changes the token.
pub(super) async fn save(
    console: &Console,
    page_request: &PageRequest,
    id: &str,
) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let id = named(id)?;
    let (form, expiration_choice) = (EditForm::posted(&fields), ExpirationChoice::posted(&fields));
    let read = Subject::read(console, &visit, id).await?;
    if !form.is_current(&read.1) {
        let mut problems = Problems::default();
        let form = form.merged(&read.1, &expiration_choice, &mut problems);
        let mut page = page(console, &visit, read, (form, expiration_choice), problems).await?;
        page.outcome = Some(STALE.to_owned());
        return console.page(&visit, StatusCode::CONFLICT, &page);
    }
    let change = match form.change(&read.1, &expiration_choice) {
        Ok(change) => change,
        Err(problems) => {
            let page = page(console, &visit, read, (form, expiration_choice), problems).await?;
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let problems = Problems::one("proof", problem);
        let page = page(console, &visit, read, (form, expiration_choice), problems).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    let context = &console.integrations.context;
    let forgetting = context.engine.invalidate_token(id);
    let changed = context.actions.update_token(visit.caller(), id, &change).await;
    drop(forgetting);
    match changed {
        Ok(_) => {
            let (path, id) = (format!("/tokens/{id}"), id.to_string());
            // It is changed, even if it cannot be said from when on everywhere.
            Ok(go_to(&match context.actions.effective_time(visit.caller()).await {
                Ok(effective) => notice::address(&visit, &path, Act::Changed, &id, effective),
                Err(_) => path,
            }))
        }
        Err(error) if is_shown_in_form(&error) => {
            let explanation = of_action(&error);
            let problems = super::new::refused(&error, &expiration_choice);
            let said = problems.is_empty();
            let mut page = page(console, &visit, read, (form, expiration_choice), problems).await?;
            page.outcome = said.then_some(explanation.text);
            let page = console.page(&visit, explanation.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, page_request, error)),
    }
}
