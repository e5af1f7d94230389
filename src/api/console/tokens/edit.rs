//! The change of a token: its name, scopes, labels, networks and expiration.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::edit_form::EditForm;
use super::ending::Ending;
use super::notice::{self, Act};
use super::pages::Edit;
use super::subject::{Subject, failed, is_said_there, named, opened, sent};
use super::terms::Terms;
use crate::api::console::failure::{Failure, of_action};
use crate::api::console::form::Problems;
use crate::api::console::interface::{Asked, Console, go_to};
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::Token;
use crate::domain::policy::Policy;

/// What the person is asked to do whose form would undo somebody else's change.
const STALE: &str = "Somebody else changed this token since the form was opened. What you changed stays as you typed it, \
                     and the rest is as the token has it now. Look at it, and save again.";

/// Shows the form.
pub(super) async fn show(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(ask(&console, &asked, &id))).await
}

/// Changes the token.
pub(super) async fn submit(
    State(console): State<Arc<Console>>,
    Path(id): Path<String>,
    asked: Asked,
) -> Response {
    console.answer(&asked, Box::pin(save(&console, &asked, &id))).await
}

async fn ask(console: &Console, asked: &Asked, id: &str) -> Result<Response, Failure> {
    let visit = opened(console, asked).await?;
    let read = Subject::read(console, &visit, named(id)?).await?;
    let form = EditForm::of(&read.1);
    let page = page(console, &visit, read, (form, Ending::kept()), Problems::default()).await?;
    console.page(&visit, StatusCode::OK, &page)
}

async fn page(
    console: &Console,
    visit: &Visit,
    (subject, token): (Subject, Token),
    (form, ending): (EditForm, Ending),
    problems: Problems,
) -> Result<Edit, Failure> {
    let owner = (token.organization_id.as_str(), token.user_id.as_str());
    let terms = Terms::read(console, visit, owner).await?;
    let terms = if Policy::binds(&token) { terms } else { terms.unbound() };
    let as_it_is = match &subject.token.expires {
        Some(end) => format!("As it is: {}", end.exact),
        None => "As it is: never".to_owned(),
    };
    Ok(Edit {
        frame: visit.frame(),
        subject,
        endings: terms.endings_of(token.create_time, visit.now).or_keep(as_it_is),
        allowed: terms.scopes(),
        lines: form.lines(&token, &ending),
        form,
        ending,
        problems,
        outcome: None,
        proof: visit.needs_proof(),
    })
}

async fn save(console: &Console, asked: &Asked, id: &str) -> Result<Response, Failure> {
    let fields = asked.form();
    let mut visit = sent(console, asked, &fields).await?;
    let id = named(id)?;
    let (form, ending) = (EditForm::posted(&fields), Ending::posted(&fields));
    let read = Subject::read(console, &visit, id).await?;
    if !form.is_current(&read.1) {
        let mut problems = Problems::default();
        let form = form.merged(&read.1, &ending, &mut problems);
        let mut page = page(console, &visit, read, (form, ending), problems).await?;
        page.outcome = Some(STALE.to_owned());
        return console.page(&visit, StatusCode::CONFLICT, &page);
    }
    let change = match form.change(&read.1, &ending) {
        Ok(change) => change,
        Err(problems) => {
            let page = page(console, &visit, read, (form, ending), problems).await?;
            return console.page(&visit, StatusCode::BAD_REQUEST, &page);
        }
    };
    if let Some(problem) = proof::missing(console, asked, &mut visit, &fields).await? {
        let problems = Problems::one("proof", problem);
        let page = page(console, &visit, read, (form, ending), problems).await?;
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
        Err(error) if is_said_there(&error) => {
            let words = of_action(&error);
            let problems = super::new::refused(&error, &ending);
            let said = problems.is_empty();
            let mut page = page(console, &visit, read, (form, ending), problems).await?;
            page.outcome = said.then_some(words.text);
            let page = console.page(&visit, words.status, &page)?;
            Err(Failure::shown(error, page))
        }
        Err(error) => Err(failed(console, asked, error)),
    }
}
