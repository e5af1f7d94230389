//! "Is this ours?": which secrets and ids in a text belong to tokens of this installation. The text is kept nowhere and
//! shown nowhere: the answer names tokens alone.

use axum::http::StatusCode;
use axum::response::Response;

use super::candidates::{Candidate, candidates};
use super::pages::{FoundView, Owner, SecretScan};
use crate::api::console::commands::Call;
use crate::api::console::failure::Failure;
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::session::visit::Visit;
use crate::domain::{Permission, Reach, TokenState};
use crate::tokens::ActionError;
use crate::verify::ProveError;

/// Shows the form.
pub(super) async fn ask(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    visit.caller().require(Permission::ReadAll)?;
    console.page(&visit, StatusCode::OK, &page(console, &visit, None, 0))
}

/// Says what is found.
pub(super) async fn find(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let fields = page_request.form();
    visit.check_form(&fields)?;
    visit.caller().require(Permission::ReadAll)?;
    let (candidates, left_out) = candidates(fields.get("text"), &console.prefix);
    let mut found = Vec::with_capacity(candidates.len());
    for candidate in &candidates {
        found.push(look_up(console, &visit, candidate).await?);
    }
    console.page(&visit, StatusCode::OK, &page(console, &visit, Some(found), left_out))
}

fn page(console: &Console, visit: &Visit, found: Option<Vec<FoundView>>, left_out: usize) -> SecretScan {
    SecretScan {
        frame: visit.frame(),
        prefix: console.prefix.as_str().to_owned(),
        organizations: visit.caller().reach() == Reach::Any,
        found,
        left_out,
        lines: Call::new(&["token", "revoke", "--from-stdin"], "RevokeToken").lines_for_secret(),
    }
}

/// Finds the token that a candidate names, and whether it proves it. No use of the token: only its owner uses it.
async fn look_up(console: &Console, visit: &Visit, candidate: &Candidate) -> Result<FoundView, Failure> {
    let context = &console.integrations.context;
    let (caller, id) = (visit.caller(), candidate.id());
    let token = match context.actions.get_token(caller, id).await {
        Ok(found) => Some(found),
        Err(ActionError::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let (what, proves) = match candidate {
        Candidate::Secret(_, text) if token.is_some() => {
            match context.engine.prove(text, visit.share()).await {
                Ok(proven) => ("Secret", proven == Some(id)),
                Err(ProveError::Format(_)) => ("Secret", false),
                Err(ProveError::Undetermined(error)) => return Err(error.into()),
            }
        }
        Candidate::Secret(..) => ("Secret", false),
        Candidate::Damaged(_) => ("Part of a secret", false),
        Candidate::Id(_) => ("Id", false),
    };
    let meaning = match (candidate, &token, proves) {
        (_, None, _) => ("There is no such token that you can see.", "off"),
        (Candidate::Secret(..), Some((token, now)), true) if token.state(*now) == TokenState::Active => {
            ("It is ours, and it is accepted: who has it can use it. Revoke it.", "bad")
        }
        (Candidate::Secret(..), Some(_), true) => ("It is ours, and it is refused already.", "good"),
        (Candidate::Secret(..), Some(_), false) => {
            ("It is not genuine: it names this token, but does not prove it.", "off")
        }
        (Candidate::Damaged(_), Some(_), _) => {
            ("It names this token. It is cut off or changed, so it is not accepted.", "warn")
        }
        (Candidate::Id(_), Some(_), _) => {
            ("It names this token, and proves nothing: an id is no secret.", "off")
        }
    };
    let may_revoke = token.as_ref().is_some_and(|(token, _)| {
        token.revoke_time.is_none()
            && caller.extent(Permission::WriteOwn).is_ok_and(|extent| extent.includes(token))
            && caller.may_manage(token).is_ok()
    });
    let token = token.map(|(token, now)| Owner::new(&token, now));
    Ok(FoundView { id: id.to_string(), what, meaning, token, may_revoke })
}
