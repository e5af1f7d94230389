//! Several tokens at once: revoked or disabled, after a page that lists them. Each is its own call, so some may fail
//! while others succeed; sending the form again is safe.

use axum::http::StatusCode;
use axum::response::Response;
use form_urlencoded::Serializer;
use time::OffsetDateTime;

use super::notice::{self, Act};
use super::pages::{Chosen, Done, Outcome};
use super::revoke::confirmed;
use super::subject::{failed, opened, sent};
use super::view::TokenView;
use crate::api::console::commands::{Call, Lines};
use crate::api::console::failure::Failure;
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest, go_to};
use crate::api::console::session::proof;
use crate::api::console::session::visit::Visit;
use crate::domain::RevokeReason;
use crate::domain::root::LastRoot;
use crate::secret::TokenId;
use crate::tokens::ActionError;
use crate::tokens::disable::Usability;
use crate::tokens::revoke::{RevocationExtent, RevokeToken, Right};

/// How many tokens can be chosen: as many as a page of the list has.
const MAX_CHOSEN: usize = 25;

/// Where it is shown what was done.
const DONE: &str = "/tokens/chosen/done";

/// Asks whether to do it.
pub(super) async fn ask(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = opened(console, page_request).await?;
    let page = question(console, &visit, &page_request.query(), Problems::default()).await?;
    console.page(&visit, StatusCode::OK, &page)
}

fn chosen_act(fields: &Fields<'_>) -> Act {
    if fields.get("do") == "disable" { Act::Disabled } else { Act::Revoked }
}

/// Returns the tokens that were chosen, each once.
fn chosen(fields: &Fields<'_>) -> Vec<TokenId> {
    let mut ids: Vec<TokenId> = Vec::new();
    for id in fields.all("id").filter_map(|id| TokenId::parse(id).ok()) {
        if !ids.contains(&id) && ids.len() < MAX_CHOSEN {
            ids.push(id);
        }
    }
    ids
}

async fn question(
    console: &Console,
    visit: &Visit,
    fields: &Fields<'_>,
    mut problems: Problems,
) -> Result<Chosen, Failure> {
    let ids = chosen(fields);
    let tokens: Vec<TokenView> = views(console, visit, &ids).await?.into_iter().flatten().collect();
    if tokens.is_empty() {
        problems.add("chosen", "No token is chosen. Go back to the list, and tick some.");
    }
    let (act, reason) = (chosen_act(fields), fields.typed("reason"));
    let texts: Vec<String> = tokens.iter().map(|token| token.id.clone()).collect();
    Ok(Chosen {
        frame: visit.frame(),
        revokes: act == Act::Revoked,
        missing: ids.len().saturating_sub(tokens.len()),
        tokens,
        lines: lines(act, &reason, &texts),
        reason,
        problems,
        proof: visit.needs_proof(),
    })
}

fn lines(act: Act, reason: &str, ids: &[String]) -> Lines {
    let call = if act == Act::Revoked {
        Call::new(&["token", "revoke"], "RevokeToken")
    } else {
        Call::new(&["token", "disable"], "DisableToken")
    };
    call.text("reason", "reason", reason).lines_for(ids)
}

/// Reads tokens; `None` for those that do not exist or are out of reach.
async fn views(console: &Console, visit: &Visit, ids: &[TokenId]) -> Result<Vec<Option<TokenView>>, Failure> {
    let mut views = Vec::with_capacity(ids.len());
    for id in ids {
        views.push(match console.integrations.context.actions.get_token(visit.caller(), *id).await {
            Ok((token, now)) => Some(TokenView::new(&token, now, &console.prefix)),
            Err(ActionError::NotFound) => None,
            Err(error) => return Err(error.into()),
        });
    }
    Ok(views)
}

/// Does it.
pub(super) async fn act(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = sent(console, page_request, &fields).await?;
    let mut problems = Problems::default();
    let (act, mut ids) = (chosen_act(&fields), chosen(&fields));
    let reason = confirmed(&fields, act, &mut problems);
    let Some(reason) = reason.filter(|_| !ids.is_empty()) else {
        let page = question(console, &visit, &fields, problems).await?;
        return console.page(&visit, StatusCode::BAD_REQUEST, &page);
    };
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let page = question(console, &visit, &fields, Problems::one("proof", problem)).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    // The session's own token last: the session ends with it.
    ids.sort_by_key(|id| visit.caller().is_token(*id));
    let mut effective = None;
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let result = match end(console, &visit, id, (act, &reason)).await {
            Ok(time) => {
                effective = effective.max(Some(time));
                "ok"
            }
            Err(ActionError::Credential(error)) => return Err(failed(console, page_request, error.into())),
            Err(error) => code(&error),
        };
        results.push(format!("{id}.{result}"));
    }
    let results = results.join(",");
    let query = Serializer::new(String::new()).append_pair("results", &results).finish();
    let path = format!("{DONE}?{query}");
    Ok(go_to(&notice::address(&visit, &path, act, &results, effective.unwrap_or(visit.now))))
}

/// Revokes or disables one token; returns from when on it is refused everywhere.
async fn end(
    console: &Console,
    visit: &Visit,
    id: TokenId,
    (act, reason): (Act, &RevokeReason),
) -> Result<OffsetDateTime, ActionError> {
    let context = &console.integrations.context;
    let forgetting = context.engine.invalidate_token(id);
    if act == Act::Disabled {
        let disable = Usability::Disabled(LastRoot::Refuse);
        return Ok(context.actions.set_usability(visit.caller(), id, disable, reason).await?.effective_time);
    }
    let request = RevokeToken {
        id,
        right: Right::Permission,
        extent: RevocationExtent::Family,
        reason: reason.clone(),
        last_root: LastRoot::Refuse,
    };
    let touch = |ids: &[TokenId]| forgetting.also(ids);
    Ok(context.actions.revoke_token(visit.caller(), &request, &touch).await?.effective_time)
}

/// What can go wrong with one of several tokens: as the address has it, and in words.
const CODES: [(&str, &str); 6] = [
    ("access", "Not done: your token does not allow it"),
    ("missing", "Not done: there is no such token"),
    ("root", "Not done: it is the last root token"),
    ("revoked", "Not done: it is revoked, which is never undone"),
    ("busy", "Not done: tokend is busy. Try again"),
    ("unknown", "Not known: the database did not answer. Try again: that is safe"),
];

fn code(error: &ActionError) -> &'static str {
    match error {
        ActionError::Access(_) => "access",
        ActionError::NotFound => "missing",
        ActionError::LastRoot(_) => "root",
        ActionError::State(_) => "revoked",
        ActionError::Refused(_) | ActionError::Overloaded(_) => "busy",
        _ => "unknown",
    }
}

/// Shows what was done.
pub(super) async fn done(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let fields = page_request.query();
    let results = fields.get("results");
    let Some((act, notice)) = notice::read(&visit, &fields, results) else { return Ok(go_to("/tokens")) };
    let parsed: Vec<_> = results
        .split(',')
        .filter_map(|result| result.split_once('.'))
        .filter_map(|(id, code)| Some((TokenId::parse(id).ok()?, code)))
        .collect();
    let ids: Vec<TokenId> = parsed.iter().map(|(id, _)| *id).collect();
    let views = views(console, &visit, &ids).await?;
    let outcomes: Vec<Outcome> =
        parsed.iter().zip(views).map(|((id, code), view)| outcome(*id, code, view, act)).collect();
    let failed: Vec<&str> = outcomes.iter().filter(|out| !out.is_done).map(|out| &*out.id).collect();
    let mut again = Serializer::new(String::new());
    again.append_pair("do", if act == Act::Revoked { "revoke" } else { "disable" });
    again.extend_pairs(failed.iter().map(|id| ("id", id)));
    let page = Done {
        frame: visit.frame(),
        revokes: act == Act::Revoked,
        notice: Some(notice).filter(|_| failed.len() < outcomes.len()),
        failed: failed.len(),
        again: format!("/tokens/chosen?{}", again.finish()),
        outcomes,
    };
    console.page(&visit, StatusCode::OK, &page)
}

fn outcome(id: TokenId, code: &str, view: Option<TokenView>, act: Act) -> Outcome {
    let failure = CODES.iter().find(|(known, _)| *known == code).map(|(_, text)| *text);
    let done = if act == Act::Revoked { "Revoked" } else { "Disabled" };
    Outcome {
        id: id.to_string(),
        name: view.map(|view| view.name),
        is_done: failure.is_none(),
        text: failure.unwrap_or(done),
    }
}
